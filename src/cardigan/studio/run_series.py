"""A journal that grows, read once: every read takes up where the last one ended, and the lines become columns of numbers.

Trusts no line: what is malformed, endless or not finite is left out and can neither stop the reading nor fill the memory.
"""

import math
import threading
from array import array
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cardigan.run.journal import Event
from cardigan.studio.journal_tail import TailReader, finite_number, parse_event

MAX_SERIES = 200
"""How many names of numbers a journal can have."""
MAX_OTHER_EVENTS = 20_000
"""How many events beside progress are kept, the last ones."""


@dataclass
class RunSeries:
    """A run as it finally went, as numbers: one row for each progress line, and the other events in their order.

    What was done again, by a resumed run or after a rollback, replaces what was lost, as in `run.journal.read_events`.
    """

    path: Path
    images_seen: array = field(default_factory=lambda: array("d"), repr=False)
    elapsed_seconds: array = field(default_factory=lambda: array("d"), repr=False)
    series: dict[str, array] = field(default_factory=dict, repr=False)
    """Every number by name, as long as `seen`, NaN where a line does not have it."""
    other_events: list[Event] = field(default_factory=list, repr=False)
    lock: AbstractContextManager[Any] = field(default_factory=threading.RLock, repr=False)
    """To be held while the track is read or looked at."""
    num_malformed: int = 0
    """How many lines were left out, since they are no events."""
    _tail: TailReader = field(init=False)

    def __post_init__(self) -> None:
        self._tail = TailReader(self.path)

    @property
    def offset(self) -> int:
        """Bytes of the journal that have been read."""
        return self._tail.offset

    @property
    def num_bytes(self) -> int:
        return 8 * len(self.images_seen) * (2 + len(self.series)) + 4_000 * len(self.other_events)

    def update(self) -> None:
        """Take what is new in the journal; a missing one is an empty one."""
        try:
            if self._tail.reset_if_replaced():
                self.images_seen, self.elapsed_seconds, self.series, self.other_events, self.num_malformed = (
                    array("d"),
                    array("d"),
                    {},
                    [],
                    0,
                )
            if self._tail.size == self._tail.offset:
                return
            for _, line in self._tail.read_lines():
                event = parse_event(line)
                if event is None:
                    self.num_malformed += 1
                else:
                    self._add(event)
        except FileNotFoundError:
            return

    def _add(self, event: Event) -> None:
        if event.kind == "progress":
            self._add_progress(event)
            return
        if event.kind in {"resume", "rollback"}:
            self._truncate_after(event.images_seen)
        self.other_events.append(event)
        if len(self.other_events) > MAX_OTHER_EVENTS:
            del self.other_events[: MAX_OTHER_EVENTS // 10]

    def _add_progress(self, event: Event) -> None:
        num_rows, series, num_values = len(self.images_seen), self.series, 0
        self.images_seen.append(event.images_seen)
        self.elapsed_seconds.append(event.elapsed_seconds)
        for name, value in event.values.items():
            number = value if type(value) is float and math.isfinite(value) else finite_number(value)
            if number is None or (name not in series and len(series) == MAX_SERIES):
                continue
            if name not in series:
                series[name] = array("d", [math.nan]) * num_rows
            series[name].append(number)
            num_values += 1
        if num_values < len(series):
            for column in series.values():
                if len(column) == num_rows:
                    column.append(math.nan)

    def _truncate_after(self, images_seen: int) -> None:
        mask = np.frombuffer(self.images_seen) <= images_seen if self.images_seen else np.zeros(0, dtype=bool)
        if not mask.all():
            self.images_seen, self.elapsed_seconds = (
                _select(self.images_seen, mask),
                _select(self.elapsed_seconds, mask),
            )
            self.series = {name: _select(column, mask) for name, column in self.series.items()}
        self.other_events = [event for event in self.other_events if event.images_seen <= images_seen]


def _select(column: array, mask: np.ndarray) -> array:
    return array("d", np.frombuffer(column)[mask].tobytes())
