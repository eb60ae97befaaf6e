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
from cardigan.run import atomic
from cardigan.run.tensors import read_tensors, write_tensors

KEEP = 3
"""How many of the latest checkpoints are kept; the best one is kept beside them."""


@dataclass(frozen=True)
class CheckpointFacts:
    """`state.json`."""

    images_seen: int
    elapsed_seconds: float
    score: float | None
    """What the run is judged by, lower is better; None where it was not judged here."""
    learning_rate_factor: float = 1.0
    """What the config's learning rates are multiplied by from here on; every rollback halves it."""


def save_checkpoint(folder: Path, tensors: dict[str, torch.Tensor], facts: CheckpointFacts, header: dict[str, Any]) -> Path:
    """Write `folder/<images_seen>/` and return it; `header` goes into the tensors' file."""
    path = folder / f"{facts.images_seen:08d}"
    atomic.remove(path)  # a damaged one, or the start of a run that is resumed before its first step
    with atomic.replacement(path) as temporary:
        temporary.mkdir(parents=True)
        write_tensors(temporary / "state.safetensors", tensors, header)
        digest = _digest(temporary / "state.safetensors")
        atomic.write_bytes(temporary / "state.json", json.dumps({**vars(facts), "sha256": digest}, indent=1).encode())
    return path


def return_to(path: Path, learning_rate_factor: float) -> None:
    """Make a checkpoint the one its run goes on from, with this factor: newer ones are removed.

    Killed in between, the run goes on from a newer one as if it had not been rolled back, which its monitor will notice again.
    """
    facts, digest = read_checkpoint_facts(path)
    changed = {**vars(facts), "learning_rate_factor": learning_rate_factor, "sha256": digest}
    atomic.write_bytes(path / "state.json", json.dumps(changed, indent=1).encode())
    for newer in list_checkpoints(path.parent):
        if int(newer.name) > int(path.name):
            atomic.remove(newer)


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first, damaged ones included."""
    return sorted((path for path in folder.glob("[0-9]*") if path.name.isdigit()), key=lambda path: int(path.name))


def read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], CheckpointFacts]:
    """Return a checkpoint's tensors and facts; raises CardiganError if any byte of it was lost."""
    facts, digest = read_checkpoint_facts(path)
    try:
        whole = _digest(path / "state.safetensors") == digest
    except OSError as error:
        raise CardiganError(f"Checkpoint {path} cannot be read: {error.strerror}.") from error
    if not whole:
        raise CardiganError(f"Checkpoint {path} is damaged (its checksum differs).")
    return read_tensors(path / "state.safetensors"), facts


def read_checkpoint_facts(path: Path) -> tuple[CheckpointFacts, str]:
    """Return what `state.json` says, with the checksum of the tensors' file."""
    try:
        values = json.loads((path / "state.json").read_bytes())
        digest = values.pop("sha256")
        facts = CheckpointFacts(**values)
        if not (type(facts.images_seen) is int and all(isinstance(number, int | float) for number in _numbers(facts))):
            raise TypeError("no numbers")
        return facts, digest
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CardiganError(f"Checkpoint {path} is damaged or half-written (state.json).") from error


def latest_checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], CheckpointFacts, list[str]] | None:
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
    """Remove all but the last `KEEP` and the best."""
    best = best_checkpoint(folder)
    for path in list_checkpoints(folder)[:-KEEP]:
        if path != best:
            atomic.remove(path)


def _score(path: Path) -> float | None:
    try:
        return read_checkpoint_facts(path)[0].score
    except CardiganError:
        return None


def _numbers(facts: CheckpointFacts) -> list[float]:
    return [facts.elapsed_seconds, facts.learning_rate_factor, *([] if facts.score is None else [facts.score])]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
