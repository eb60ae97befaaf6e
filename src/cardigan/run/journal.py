"""`journal.jsonl`: what happened, one event a line, append-only.

The writer is training; readers may come at any time, so a torn last line is no error.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardigan.files.atomic import write_error


@dataclass(frozen=True)
class Event:
    """One line: its kind (start, resume, note, progress, samples, checkpoint, fault, rollback, stop), when, and named values."""

    kind: str
    images_seen: int
    elapsed_seconds: float
    values: dict[str, Any]


class Journal:
    """Appends events to a file, each whole in one write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and not path.read_bytes().endswith(b"\n"):
            self._append(b"\n")  # the line a killed writer left torn must not swallow the next one

    def append(self, event: Event) -> None:
        line = {
            "kind": event.kind,
            "images_seen": event.images_seen,
            "elapsed_seconds": round(event.elapsed_seconds, 3),
            **event.values,
        }
        self._append(json.dumps(line).encode() + b"\n")

    def _append(self, content: bytes) -> None:
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, content)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise write_error(self.path, error) from error


def read_events(path: Path) -> list[Event]:
    """Return the events of the run as it finally went: what was done again, by a resumed run or after a rollback, replaces what was lost.

    Damaged lines are left out; a missing file is an empty list.
    """
    events: list[Event] = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        event = _parse_event(line)
        if event is None:
            continue
        if event.kind in {"resume", "rollback"}:
            events = [known for known in events if known.images_seen <= event.images_seen]
        events.append(event)
    return events


def _parse_event(line: bytes) -> Event | None:
    try:
        values = json.loads(line)
        return Event(
            str(values.pop("kind")), int(values.pop("images_seen")), float(values.pop("elapsed_seconds")), values
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
