"""Load both networks from a run's checkpoint: the EMA generator and the discriminator."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from cardigan.errors import CardiganError
from cardigan.files.tensors import read_tensors
from cardigan.models.discriminator_file import DISCRIMINATOR_FILE, load_discriminator, read_discriminator
from cardigan.models.hub import WEIGHTS_FILE, is_hub_address
from cardigan.models.snapshot import Snapshot, read_snapshot, snapshot_metadata
from cardigan.models.starters import located
from cardigan.nets.interface import Discriminator
from cardigan.nets.table import build_discriminator, build_networks
from cardigan.run.checkpoint import list_checkpoints
from cardigan.run.directory import RunDirectory

STATE_FILE = "state.safetensors"


@dataclass(frozen=True)
class RunNetworks:
    """Both networks after `images_seen` images, in evaluation mode and without gradients."""

    snapshot: Snapshot
    discriminator: Discriminator
    images_seen: int


def load_networks(path: Path) -> RunNetworks:
    """Return the networks in a run directory (from the latest intact checkpoint), a checkpoint folder or a starter.

    Raises CardiganError if there is no discriminator, e.g. for a generator.safetensors or a model of the hub.
    """
    path = located(path)
    if (path / DISCRIMINATOR_FILE).exists():
        return _read_folder(path)
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
    """Return the same generator with the discriminator as it was initialized."""
    config, spec = networks.snapshot.config, networks.snapshot.spec
    _, discriminator = build_networks(config, spec)
    return replace(networks, discriminator=discriminator.eval().requires_grad_(False))


def _read_latest(path: Path) -> RunNetworks:
    run = RunDirectory(path)
    checkpoints = list_checkpoints(run.checkpoints)
    if not checkpoints:
        if run.config.exists():
            raise CardiganError(
                f"{path} has no checkpoint yet, which would hold the discriminator: wait for the first one."
            )
        raise CardiganError(f"{path} holds no discriminator: give a run directory or one of its checkpoints.")
    for older in reversed(checkpoints[1:]):
        try:
            return _read(older / STATE_FILE)
        except CardiganError:
            continue  # damaged, or removed by a running training: try the one before
    return _read(checkpoints[0] / STATE_FILE)


def _read_folder(folder: Path) -> RunNetworks:
    """Return the networks of a model folder that also holds the discriminator."""
    snapshot = read_snapshot(folder)
    discriminator = read_discriminator(
        folder / DISCRIMINATOR_FILE,
        snapshot.config,
        snapshot.spec,
        snapshot_metadata(snapshot.config, snapshot.spec, snapshot.images_seen),
    )
    return RunNetworks(snapshot, discriminator, snapshot.images_seen)


def _read(file: Path) -> RunNetworks:
    snapshot = read_snapshot(file)
    with torch.device("meta"):  # allocate nothing before the file is checked
        discriminator = build_discriminator(snapshot.config, snapshot.spec)
    tensors = read_tensors(file, "discriminator.")
    expected = {name: (tensor.shape, tensor.dtype) for name, tensor in discriminator.state_dict().items()}
    if expected != {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}:
        raise CardiganError(
            f"{file} does not hold the discriminator that its header describes: use another checkpoint."
        )
    discriminator = load_discriminator(tensors, snapshot.config, snapshot.spec, discriminator)
    return RunNetworks(snapshot, discriminator, snapshot.images_seen)
