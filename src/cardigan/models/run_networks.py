"""Both players of a run at one moment, to look into: the averaged generator, and the discriminator it was trained against.

Reads checkpoints; knows nothing of training.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from cardigan.errors import CardiganError
from cardigan.files.tensors import read_tensors
from cardigan.models.hub import WEIGHTS_FILE, is_hub_address
from cardigan.models.snapshot import Snapshot, read_snapshot
from cardigan.nets.interface import Discriminator
from cardigan.nets.table import build_discriminator, build_networks
from cardigan.run.checkpoint import list_checkpoints
from cardigan.run.directory import RunDirectory

STATE_FILE = "state.safetensors"


@dataclass(frozen=True)
class RunNetworks:
    """The two players as they stood after `images_seen` images; both in evaluation mode, no parameter asks for a gradient."""

    snapshot: Snapshot
    discriminator: Discriminator
    images_seen: int


def load_networks(path: Path) -> RunNetworks:
    """Return the players in a run directory (of its latest whole checkpoint) or in a checkpoint folder.

    Raises CardiganError for what holds no discriminator, such as a lone generator.safetensors or a model of the hub.
    """
    if is_hub_address(path) or (path / WEIGHTS_FILE).exists():
        raise CardiganError(
            f"{path} holds no discriminator, only a generator: give the run directory or one of its checkpoints."
        )
    if path.is_dir() and not (path / STATE_FILE).exists():
        return _read_latest(path)
    file = path / STATE_FILE if path.is_dir() else path
    if file.exists() and file.name != STATE_FILE:
        raise CardiganError(
            f"{path} holds no discriminator, only a generator: give the run directory or one of its checkpoints."
        )
    return _read(file)


def untrained_networks(networks: RunNetworks) -> RunNetworks:
    """Return the same generator beside the discriminator as it was before the run's first step."""
    config, spec = networks.snapshot.config, networks.snapshot.spec
    _, discriminator = build_networks(config, spec)
    return replace(networks, discriminator=discriminator.eval().requires_grad_(False))


def _read_latest(path: Path) -> RunNetworks:
    run = RunDirectory(path)
    checkpoints = list_checkpoints(run.checkpoints)
    if not checkpoints:
        if run.config.exists():
            raise CardiganError(
                f"{path} has no checkpoint, which is where a discriminator is kept: wait for its first one."
            )
        raise CardiganError(f"{path} holds no discriminator: give a run directory or one of its checkpoints.")
    for older in reversed(checkpoints[1:]):
        try:
            return _read(older / STATE_FILE)
        except CardiganError:
            continue  # damaged, or removed by a training that goes on: the one before it will do
    return _read(checkpoints[0] / STATE_FILE)


def _read(file: Path) -> RunNetworks:
    snapshot = read_snapshot(file)
    with torch.device("meta"):  # nothing is allocated until the file has proven to hold it
        discriminator = build_discriminator(snapshot.config, snapshot.spec)
    tensors = read_tensors(file, "discriminator.")
    expected = {name: (tensor.shape, tensor.dtype) for name, tensor in discriminator.state_dict().items()}
    if expected != {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}:
        raise CardiganError(
            f"{file} does not hold the discriminator that its header describes: give another checkpoint."
        )
    discriminator.load_state_dict(tensors, assign=True)
    return RunNetworks(snapshot, discriminator.eval().requires_grad_(False), snapshot.images_seen)
