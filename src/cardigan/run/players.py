"""Both players of a run at one moment, to look into: the averaged generator, and the discriminator it was trained against.

Reads checkpoints; knows nothing of training.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from cardigan.errors import CardiganError
from cardigan.nets.interface import Discriminator
from cardigan.nets.table import build_discriminator, build_players
from cardigan.run.checkpoint import list_checkpoints
from cardigan.run.directory import RunDirectory
from cardigan.run.hub import WEIGHTS, is_address
from cardigan.run.snapshot import Snapshot, read_snapshot
from cardigan.run.tensors import read_tensors

STATE = "state.safetensors"


@dataclass(frozen=True)
class Players:
    """The two players as they stood after `images_seen` images; both in evaluation mode, no parameter asks for a gradient."""

    snapshot: Snapshot
    discriminator: Discriminator
    images_seen: int


def read_players(path: Path) -> Players:
    """Return the players in a run directory (of its latest whole checkpoint) or in a checkpoint folder.

    Raises CardiganError for what holds no discriminator, such as a lone generator.safetensors or a model of the hub.
    """
    if is_address(path) or (path / WEIGHTS).exists():
        raise CardiganError(f"{path} holds no discriminator, only a generator: give the run directory or one of its checkpoints.")
    if path.is_dir() and not (path / STATE).exists():
        return _latest(path)
    file = path / STATE if path.is_dir() else path
    if file.exists() and file.name != STATE:
        raise CardiganError(f"{path} holds no discriminator, only a generator: give the run directory or one of its checkpoints.")
    return _read(file)


def before_training(players: Players) -> Players:
    """Return the same generator beside the discriminator as it was before the run's first step."""
    config, spec = players.snapshot.config, players.snapshot.spec
    _, discriminator = build_players(config, spec)
    return replace(players, discriminator=discriminator.eval().requires_grad_(False))


def _latest(path: Path) -> Players:
    run = RunDirectory(path)
    checkpoints = list_checkpoints(run.checkpoints)
    if not checkpoints:
        if run.config.exists():
            raise CardiganError(f"{path} has no checkpoint, which is where a discriminator is kept: wait for its first one.")
        raise CardiganError(f"{path} holds no discriminator: give a run directory or one of its checkpoints.")
    for older in reversed(checkpoints[1:]):
        try:
            return _read(older / STATE)
        except CardiganError:
            continue  # damaged, or removed by a training that goes on: the one before it will do
    return _read(checkpoints[0] / STATE)


def _read(file: Path) -> Players:
    snapshot = read_snapshot(file)
    with torch.device("meta"):  # nothing is allocated until the file has proven to hold it
        discriminator = build_discriminator(snapshot.config, snapshot.spec)
    tensors = read_tensors(file, "discriminator.")
    expected = {name: (tensor.shape, tensor.dtype) for name, tensor in discriminator.state_dict().items()}
    if expected != {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}:
        raise CardiganError(f"{file} does not hold the discriminator that its header describes: give another checkpoint.")
    discriminator.load_state_dict(tensors, assign=True)
    return Players(snapshot, discriminator.eval().requires_grad_(False), snapshot.images_seen)
