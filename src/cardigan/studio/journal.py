"""A journal that grows, read once: every read takes up where the last one ended, and the lines become columns of numbers.

Trusts no line: what is malformed, endless or not finite is left out and can neither stop the reading nor fill the memory.
"""

import json
import math
import threading
from array import array
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cardigan.run.journal import Event

CHUNK = 1 << 20
MAX_LINE = 1 << 20
"""Bytes of one line; a longer one is malformed."""
MAX_SERIES = 200
"""How many names of numbers a journal can have."""
MAX_OTHERS = 20_000
"""How many events beside progress are kept, the last ones."""
HUGE = 2**53
PROGRESS = b'{"kind": "progress"'
"""How the trainer begins a line of progress; another spelling is only slower."""


@dataclass
class Lines:
    """Whole new lines of a file that is appended to, with the offset behind each; torn ones wait for their rest."""

    path: Path
    offset: int = 0
    identity: int | None = None
    size: int = 0
    """How long the file was when it was looked at."""

    def begun_anew(self) -> bool:
        """Return whether the file is another one than before, or shorter: then reading begins at its start. Raises OSError."""
        facts = self.path.stat()
        changed = self.identity is not None and (facts.st_ino != self.identity or facts.st_size < self.offset)
        self.identity, self.size = facts.st_ino, facts.st_size
        if changed:
            self.offset = 0
        return changed

    def new(self, up_to: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Yield (offset after the line, the line without its end), up to an offset; raises OSError."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            start, pending = self.offset, b""
            while chunk := file.read(CHUNK if up_to is None else min(CHUNK, up_to - start - len(pending))):
                *whole, pending = (pending + chunk).split(b"\n")
                for line in whole:
                    start += len(line) + 1
                    self.offset = start
                    yield start, line
                if len(pending) > MAX_LINE:
                    start += len(pending)
                    self.offset, pending = start, b""  # its rest will be no event either


def parsed(line: bytes) -> Event | None:
    """Return the event of one line; None for what is none."""
    if len(line) > MAX_LINE:
        return None
    try:
        finite = None if line.startswith(PROGRESS) else number_of  # whose numbers are looked at one by one
        values = json.loads(line, parse_constant=_no_number, parse_float=finite)
        kind, seen, elapsed = values.pop("kind"), values.pop("images_seen"), values.pop("elapsed_seconds")
        sound = isinstance(kind, str) and isinstance(seen, int) and 0 <= seen < HUGE and math.isfinite(elapsed)
        return Event(kind, int(seen), float(elapsed), values) if sound else None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _no_number(_: str) -> None:
    """Read NaN and infinities, which JSON does not have, as nothing."""


def number_of(text: str) -> float | None:
    """Return a number as it is written, None for one that overflows."""
    return number(float(text))


def number(value: object) -> float | None:
    """Return a value of an event as a finite number, None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


@dataclass
class Track:
    """A run as it finally went, as numbers: one row for each progress line, and the other events in their order.

    What was done again, by a resumed run or after a rollback, replaces what was lost, as in `run.journal.read_events`.
    """

    path: Path
    seen: array = field(default_factory=lambda: array("d"), repr=False)
    seconds: array = field(default_factory=lambda: array("d"), repr=False)
    series: dict[str, array] = field(default_factory=dict, repr=False)
    """Every number by name, as long as `seen`, NaN where a line does not have it."""
    others: list[Event] = field(default_factory=list, repr=False)
    lock: AbstractContextManager[Any] = field(default_factory=threading.RLock, repr=False)
    """To be held while the track is read or looked at."""
    damaged: int = 0
    """How many lines were left out, since they are no events."""
    _lines: Lines = field(init=False)

    def __post_init__(self) -> None:
        self._lines = Lines(self.path)

    @property
    def offset(self) -> int:
        """Bytes of the journal that have been read."""
        return self._lines.offset

    @property
    def num_bytes(self) -> int:
        return 8 * len(self.seen) * (2 + len(self.series)) + 4_000 * len(self.others)

    def read(self) -> None:
        """Take what is new in the journal; a missing one is an empty one."""
        try:
            if self._lines.begun_anew():
                self.seen, self.seconds, self.series, self.others, self.damaged = array("d"), array("d"), {}, [], 0
            if self._lines.size == self._lines.offset:
                return
            for _, line in self._lines.new():
                event = parsed(line)
                if event is None:
                    self.damaged += 1
                else:
                    self._take(event)
        except FileNotFoundError:
            return

    def _take(self, event: Event) -> None:
        if event.kind == "progress":
            self._take_numbers(event)
            return
        if event.kind in {"resume", "rollback"}:
            self._forget_after(event.images_seen)
        self.others.append(event)
        if len(self.others) > MAX_OTHERS:
            del self.others[: MAX_OTHERS // 10]

    def _take_numbers(self, event: Event) -> None:
        rows, series, told = len(self.seen), self.series, 0
        self.seen.append(event.images_seen)
        self.seconds.append(event.elapsed_seconds)
        for name, value in event.values.items():
            found = value if type(value) is float and math.isfinite(value) else number(value)
            if found is None or (name not in series and len(series) == MAX_SERIES):
                continue
            if name not in series:
                series[name] = array("d", [math.nan]) * rows
            series[name].append(found)
            told += 1
        if told < len(series):
            for column in series.values():
                if len(column) == rows:
                    column.append(math.nan)

    def _forget_after(self, images_seen: int) -> None:
        kept = np.frombuffer(self.seen) <= images_seen if self.seen else np.zeros(0, dtype=bool)
        if not kept.all():
            self.seen, self.seconds = _where(self.seen, kept), _where(self.seconds, kept)
            self.series = {name: _where(column, kept) for name, column in self.series.items()}
        self.others = [event for event in self.others if event.images_seen <= images_seen]


def _where(column: array, kept: np.ndarray) -> array:
    return array("d", np.frombuffer(column)[kept].tobytes())
