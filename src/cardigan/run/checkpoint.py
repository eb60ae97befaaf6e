"""Checkpoints: a folder by images_seen, whole by rename or not there, proven by a checksum when read.

Does not know what a state is made of: named tensors and a few facts.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cardigan.errors import CardiganError
from cardigan.files import atomic
from cardigan.files.tensors import read_tensors, write_tensors

NUM_KEPT = 3
"""How many of the latest checkpoints are kept; the best one is kept beside them."""


@dataclass(frozen=True)
class CheckpointMetadata:
    """`state.json`."""

    images_seen: int
    elapsed_seconds: float
    score: float | None
    """What the run is judged by, lower is better; None where it was not judged here."""
    learning_rate_factor: float = 1.0
    """What the config's learning rates are multiplied by from here on; every rollback halves it."""


def save_checkpoint(
    folder: Path, tensors: dict[str, torch.Tensor], metadata: CheckpointMetadata, header: dict[str, Any]
) -> Path:
    """Write `folder/<images_seen>/` and return it; `header` goes into the tensors' file."""
    path = folder / f"{metadata.images_seen:08d}"
    atomic.remove(path)  # a damaged one, or the start of a run that is resumed before its first step
    with atomic.atomic_path(path) as temporary:
        temporary.mkdir(parents=True)
        write_tensors(temporary / "state.safetensors", tensors, header)
        sha256 = _file_sha256(temporary / "state.safetensors")
        atomic.write_bytes(
            temporary / "state.json", json.dumps({**vars(metadata), "sha256": sha256}, indent=1).encode()
        )
    return path


def rollback_to(path: Path, learning_rate_factor: float) -> None:
    """Make a checkpoint the one its run goes on from, with this factor: newer ones are removed.

    Killed in between, the run goes on from a newer one as if it had not been rolled back, which its monitor will notice again.
    """
    metadata, sha256 = read_checkpoint_metadata(path)
    updated = {**vars(metadata), "learning_rate_factor": learning_rate_factor, "sha256": sha256}
    atomic.write_bytes(path / "state.json", json.dumps(updated, indent=1).encode())
    for newer_checkpoint in list_checkpoints(path.parent):
        if int(newer_checkpoint.name) > int(path.name):
            atomic.remove(newer_checkpoint)


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first, damaged ones included."""
    return sorted((path for path in folder.glob("[0-9]*") if path.name.isdigit()), key=lambda path: int(path.name))


def read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], CheckpointMetadata]:
    """Return a checkpoint's tensors and facts; raises CardiganError if any byte of it was lost."""
    metadata, sha256 = read_checkpoint_metadata(path)
    try:
        is_intact = _file_sha256(path / "state.safetensors") == sha256
    except OSError as error:
        raise CardiganError(f"Checkpoint {path} cannot be read: {error.strerror}.") from error
    if not is_intact:
        raise CardiganError(f"Checkpoint {path} is damaged (its checksum differs).")
    return read_tensors(path / "state.safetensors"), metadata


def read_checkpoint_metadata(path: Path) -> tuple[CheckpointMetadata, str]:
    """Return what `state.json` says, with the checksum of the tensors' file."""
    try:
        values = json.loads((path / "state.json").read_bytes())
        sha256 = values.pop("sha256")
        metadata = CheckpointMetadata(**values)
        if not (
            type(metadata.images_seen) is int
            and all(isinstance(number, int | float) for number in _float_fields(metadata))
        ):
            raise TypeError("no numbers")
        return metadata, sha256
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CardiganError(f"Checkpoint {path} is damaged or half-written (state.json).") from error


def load_latest_checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], CheckpointMetadata, list[str]] | None:
    """Return the newest whole checkpoint and a message for each damaged one passed over, or None if there is none."""
    messages = []
    for path in reversed(list_checkpoints(folder)):
        try:
            return *read_checkpoint(path), messages
        except CardiganError as error:
            messages.append(f"{error} Going back to the one before.")
    return None


def best_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint with the lowest score, or None if none was judged."""
    scores = {path: score for path in list_checkpoints(folder) if (score := _score(path)) is not None}
    return min(scores, key=lambda path: scores[path]) if scores else None


def prune_checkpoints(folder: Path) -> None:
    """Remove all but the last `NUM_KEPT` and the best."""
    best = best_checkpoint(folder)
    for path in list_checkpoints(folder)[:-NUM_KEPT]:
        if path != best:
            atomic.remove(path)


def _score(path: Path) -> float | None:
    try:
        return read_checkpoint_metadata(path)[0].score
    except CardiganError:
        return None


def _float_fields(metadata: CheckpointMetadata) -> list[float]:
    return [
        metadata.elapsed_seconds,
        metadata.learning_rate_factor,
        *([] if metadata.score is None else [metadata.score]),
    ]


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
