"""A run's journal as columns of numbers, read incrementally.

Malformed lines and numbers that are not finite are skipped; names and events are limited, which bounds the memory.
"""

import math
import threading
from array import array
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cardigan.run.journal import REWIND_KINDS, Event, rewind
from cardigan.studio.journal_tail import TailReader, finite_number, parse_event

MAX_SERIES = 200
"""Maximum number of metrics per run."""
MAX_OTHER_EVENTS = 20_000
"""Maximum number of events other than progress. The oldest are dropped first."""


@dataclass
class RunSeries:
    """A run's metrics with one row per progress event, and its other events in order.

    A resume or rollback undoes rows and events, as in `run.journal.rewind`.
    """

    path: Path
    images_seen: array = field(default_factory=lambda: array("d"), repr=False)
    elapsed_seconds: array = field(default_factory=lambda: array("d"), repr=False)
    series: dict[str, array] = field(default_factory=dict, repr=False)
    """Metrics by name, each as long as `images_seen`. NaN where an event lacks the metric."""
    other_events: list[Event] = field(default_factory=list, repr=False)
    lock: AbstractContextManager[Any] = field(default_factory=threading.RLock, repr=False)
    """Hold it while reading or updating the series."""
    num_malformed: int = 0
    """Number of malformed lines that were skipped."""
    _tail: TailReader = field(init=False)

    def __post_init__(self) -> None:
        self._tail = TailReader(self.path)

    @property
    def offset(self) -> int:
        """Number of journal bytes read so far."""
        return self._tail.offset

    @property
    def num_bytes(self) -> int:
        return 8 * len(self.images_seen) * (2 + len(self.series)) + 4_000 * len(self.other_events)

    def update(self) -> None:
        """Read the journal's new lines. A missing journal counts as empty."""
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
        if event.kind in REWIND_KINDS:
            self._rewind_rows(event.images_seen)
        self.other_events = rewind(self.other_events, event, lambda earlier: earlier.images_seen)
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

    def _rewind_rows(self, images_seen: int) -> None:
        """Do what `rewind` does, for columns of numbers."""
        mask = np.frombuffer(self.images_seen) <= images_seen if self.images_seen else np.zeros(0, dtype=bool)
        if not mask.all():
            self.images_seen, self.elapsed_seconds = (
                _select(self.images_seen, mask),
                _select(self.elapsed_seconds, mask),
            )
            self.series = {name: _select(column, mask) for name, column in self.series.items()}


def _select(column: array, mask: np.ndarray) -> array:
    return array("d", np.frombuffer(column)[mask].tobytes())
