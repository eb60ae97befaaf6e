"""How far a run has been sent to a tracker: `trackers/NAME/position.json` in the run directory.

Keeps one position for each destination and project, and a lock, so that two processes never send the same run.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from cardigan.errors import CardiganError
from cardigan.files.atomic import write_bytes, write_error
from cardigan.run.directory import try_lock

LOCK_RETRY_SECONDS = 0.5


@dataclass(frozen=True)
class Position:
    """What the tracker has of a run."""

    run_id: str | None = None
    """The tracker's name for the run."""
    where: str = ""
    """Where the user sees the run."""
    offset: int = 0
    """Bytes of the journal that are sent."""
    images_seen: int = 0
    """Of the last event sent."""
    num_events: int = 0
    """Number of events sent."""
    files_images_seen: int = -1
    """When the run's files were sent, in images seen. -1 if they were not."""


def tracker_folder(run: Path, tracker: str) -> Path:
    return run / "trackers" / tracker


def read_positions(run: Path, tracker: str) -> dict[str, Position]:
    """Return the positions by destination and project, the latest last. Raises CardiganError if the file is damaged."""
    path = tracker_folder(run, tracker) / "position.json"
    try:
        return {key: Position(**values) for key, values in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CardiganError(f"{path} is damaged: remove it, and the run is sent from its start.") from error


def write_position(run: Path, tracker: str, key: str, position: Position) -> None:
    positions = read_positions(run, tracker)
    positions.pop(key, None)
    content = {name: asdict(each) for name, each in {**positions, key: position}.items()}
    write_bytes(tracker_folder(run, tracker) / "position.json", json.dumps(content, indent=1).encode())


def place_of(run: Path, tracker: str) -> str:
    """Return where the user sees the run in a tracker, "" if it was never sent there."""
    try:
        return next((each.where for each in reversed(read_positions(run, tracker).values())), "")
    except CardiganError:
        return ""


@contextmanager
def sender_lock(run: Path, tracker: str, wait_seconds: float) -> Iterator[None]:
    """Be the only process that sends this run to this tracker. Raises CardiganError if another one does for longer."""
    folder = tracker_folder(run, tracker)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        _acquire(descriptor, wait_seconds, f"{run} is being sent to {tracker} by another process: wait for it.")
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, wait_seconds: float, refusal: str) -> None:
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            try_lock(descriptor, shared=False)
            return
        except OSError as error:
            if time.monotonic() >= deadline:
                raise CardiganError(refusal) from error
            time.sleep(LOCK_RETRY_SECONDS)
