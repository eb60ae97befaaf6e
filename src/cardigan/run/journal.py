"""`journal.jsonl`: the events of a run, one per line, append-only.

Training writes it. It can be read at any time, so an incomplete last line is no error.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cardigan.files.atomic import write_error
from cardigan.files.special_files import reject_special_file

REWIND_KINDS = frozenset({"resume", "rollback"})
"""Events that go back to an earlier images_seen. They undo what the journal holds of later ones."""
Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Event:
    """One line of a run's journal: its kind, its time and named values.

    Kinds: start, resume, note, progress, samples, checkpoint, fault, rollback, stop.

    Examples:
        >>> import cardigan
        >>> event = cardigan.Event("checkpoint", images_seen=50_000, elapsed_seconds=61.5, values={"score": 5.3})
        >>> event.values["score"]
        5.3
    """

    kind: str
    """What happened."""
    images_seen: int
    """Training images seen until then."""
    elapsed_seconds: float
    """Seconds since the run began, over all its parts."""
    values: dict[str, Any]
    """What was measured or decided, by name."""


class Journal:
    """Appends events to a file, each in one write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        content = _read_bytes(path)
        if content and not content.endswith(b"\n"):
            self._append(b"\n")  # ends a line that a killed writer left incomplete

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
    """Return the events of a run. Events that a resume or a rollback has undone are omitted.

    `path` is its journal.jsonl. Damaged lines are skipped. A missing file gives an empty list. Raises CardiganError for
    a device or a pipe in the file's place.

    Examples:
        >>> import cardigan
        >>> from pathlib import Path
        >>> events = cardigan.read_events(Path("runs/first/journal.jsonl"))
        >>> events[0].kind, events[-1].values["reason"]
        ('start', 'images')
    """
    events: list[Event] = []
    for line in _read_bytes(path).splitlines():
        event = _parse_event(line)
        if event is None:
            continue
        events = rewind(events, event, lambda earlier: earlier.images_seen)
        events.append(event)
    return events


def read_new_events(path: Path, offset: int) -> list[tuple[Event, int]]:
    """Return the events after `offset` bytes, each with the offset of its end. An incomplete last line is left out.

    Events that a later one of them undoes are omitted. A missing file gives an empty list.
    """
    events: list[tuple[Event, int]] = []
    for line in _read_bytes(path)[offset:].splitlines(keepends=True):
        offset += len(line)
        event = _parse_event(line) if line.endswith(b"\n") else None
        if event is None:
            continue
        events = rewind(events, event, lambda earlier: earlier[0].images_seen)
        events.append((event, offset))
    return events


def _read_bytes(path: Path) -> bytes:
    if not path.exists():
        return b""
    reject_special_file(path)
    return path.read_bytes()


def rewind(entries: list[Entry], event: Event, images_seen: Callable[[Entry], int]) -> list[Entry]:
    """Return the entries that an event does not undo. A resume or rollback undoes those after its images_seen."""
    if event.kind not in REWIND_KINDS:
        return entries
    return [entry for entry in entries if images_seen(entry) <= event.images_seen]


def _parse_event(line: bytes) -> Event | None:
    try:
        values = json.loads(line)
        return Event(
            str(values.pop("kind")), int(values.pop("images_seen")), float(values.pop("elapsed_seconds")), values
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
