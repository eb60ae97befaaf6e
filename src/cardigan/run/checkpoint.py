"""Checkpoints: one folder per images_seen, renamed into place when complete and verified by checksums when read.

Knows only named tensors and a few numbers, not what a training state consists of.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cardigan.errors import CardiganError
from cardigan.files import atomic
from cardigan.files.sha256 import file_sha256, json_sha256
from cardigan.files.special_files import reject_special_file
from cardigan.files.tensors import read_tensors, write_tensors

NUM_KEPT = 3
"""How many of the latest checkpoints are kept, in addition to the best one."""


@dataclass(frozen=True)
class CheckpointMetadata:
    """The contents of `state.json`."""

    images_seen: int
    elapsed_seconds: float
    score: float | None
    """The quick score, lower is better. None if this checkpoint was not evaluated."""
    learning_rate_factor: float = 1.0
    """Factor on the config's learning rates from here on. Each rollback halves it."""
    config_sha256: str = ""
    """The checksum of the settings and the source that the state was trained with; see `run/integrity.py`."""
    source_sha256: str = ""


def save_checkpoint(
    folder: Path, tensors: dict[str, torch.Tensor], metadata: CheckpointMetadata, header: dict[str, Any]
) -> Path:
    """Write `folder/<images_seen>/` and return its path. `header` is the metadata of the tensor file."""
    path = folder / f"{metadata.images_seen:08d}"
    atomic.remove(path)  # it exists if it is damaged, or if a run is resumed before its first step
    with atomic.atomic_path(path) as temporary:
        temporary.mkdir(parents=True)
        write_tensors(temporary / "state.safetensors", tensors, header)
        sha256 = file_sha256(temporary / "state.safetensors")
        atomic.write_bytes(temporary / "state.json", _state_json(metadata, sha256))
    return path


def rollback_to(path: Path, learning_rate_factor: float) -> None:
    """Make a checkpoint the latest of its run, with this learning rate factor, by removing all newer ones.

    If the process is killed in between, the run resumes from a newer checkpoint, and the monitor will find the fault
    again.
    """
    metadata, sha256 = read_checkpoint_metadata(path)
    updated = replace(metadata, learning_rate_factor=learning_rate_factor)
    atomic.write_bytes(path / "state.json", _state_json(updated, sha256))
    for newer_checkpoint in list_checkpoints(path.parent):
        if int(newer_checkpoint.name) > int(path.name):
            atomic.remove(newer_checkpoint)


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first, damaged ones included."""
    return sorted((path for path in folder.glob("[0-9]*") if path.name.isdigit()), key=lambda path: int(path.name))


def read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], CheckpointMetadata]:
    """Return a checkpoint's tensors and metadata. Raises CardiganError if it is damaged."""
    metadata, sha256 = read_checkpoint_metadata(path)
    try:
        is_intact = file_sha256(path / "state.safetensors") == sha256
    except OSError as error:
        raise CardiganError(f"Checkpoint {path} cannot be read: {error.strerror}.") from error
    if not is_intact:
        raise CardiganError(f"Checkpoint {path} is damaged (its checksum differs).")
    return read_tensors(path / "state.safetensors"), metadata


def read_checkpoint_metadata(path: Path) -> tuple[CheckpointMetadata, str]:
    """Return the metadata in `state.json` and the tensor file's checksum. Raises CardiganError if it is damaged."""
    try:
        reject_special_file(path / "state.json")
        values = json.loads((path / "state.json").read_bytes())
        if values.pop("sha256") != json_sha256(values):
            raise ValueError("changed after it was written")
        tensors_sha256 = values.pop("tensors_sha256")
        metadata = CheckpointMetadata(**values)
        if not (
            type(metadata.images_seen) is int
            and all(isinstance(number, int | float) for number in _float_fields(metadata))
        ):
            raise TypeError("not numbers")
        return metadata, tensors_sha256
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CardiganError(f"Checkpoint {path} is damaged, or was changed by hand (state.json).") from error


def _state_json(metadata: CheckpointMetadata, tensors_sha256: str) -> bytes:
    values = {**vars(metadata), "tensors_sha256": tensors_sha256}
    return json.dumps({**values, "sha256": json_sha256(values)}, indent=1).encode()


def load_latest_checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], CheckpointMetadata, list[str]] | None:
    """Return the newest intact checkpoint and a message for each damaged one skipped, or None if there is none.

    Raises CardiganError if all are damaged: a run must not start again from nothing and overwrite them.
    """
    messages: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            return *read_checkpoint(path), messages
        except CardiganError as error:
            messages.append(f"{error} Using the previous one.")
    if messages:
        raise CardiganError(
            f"No checkpoint in {folder} is intact ({len(messages)} damaged): restore one from a backup, or start again "
            "with another --out."
        )
    return None


def best_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint with the lowest score, or None if none was evaluated."""
    scores = {path: score for path in list_checkpoints(folder) if (score := _score(path)) is not None}
    return min(scores, key=lambda path: scores[path]) if scores else None


def prune_checkpoints(folder: Path) -> None:
    """Remove all checkpoints except the last `NUM_KEPT` and the best."""
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
