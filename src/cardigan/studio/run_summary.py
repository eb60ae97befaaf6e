"""The facts of a run's journal that the table of runs shows: progress, scores, faults, last event.

Only the last progress line before each other event is parsed, so that thousands of runs are read in seconds.
"""

import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

from cardigan.health.status import FoundFault, HealthStatus, health_status
from cardigan.run.journal import Event, rewind
from cardigan.studio.journal_tail import PROGRESS_PREFIX, TailReader, finite_number, parse_event

MAX_ENTRIES = 10_000
MAX_SAMPLES = 4_096


@dataclass
class RunSummary:
    """Summary of a run's journal so far."""

    path: Path
    last_event: Event | None = None
    """The last event, of any kind."""
    images_per_second: float | None = None
    """Images per second of the last progress event."""
    scores: list[tuple[int, float]] = field(default_factory=list)
    """(images_seen, score) of every scored checkpoint, without those that a rollback dropped."""
    faults: list[FoundFault] = field(default_factory=list)
    max_diversity: float | None = None
    """The largest diversity in the lines that were parsed. None if there is none."""
    latest_sheet: int | None = None
    """images_seen of the newest sample sheet."""
    num_samples: int | None = None
    """Number of generated images on it."""
    lock: AbstractContextManager[Any] = field(default_factory=threading.RLock, repr=False)
    """Hold it while reading or updating the summary."""
    _tail: TailReader = field(init=False)

    def __post_init__(self) -> None:
        self._tail = TailReader(self.path)

    @property
    def offset(self) -> int:
        """Number of journal bytes read so far."""
        return self._tail.offset

    @property
    def health(self) -> HealthStatus:
        images_seen = self.last_event.images_seen if self.last_event else 0
        return health_status(images_seen, self.max_diversity, len(self.scores), self.faults)

    def update(self) -> None:
        """Read the journal's new lines. A missing journal counts as empty."""
        try:
            if self._tail.reset_if_replaced():
                (
                    self.last_event,
                    self.images_per_second,
                    self.scores,
                    self.faults,
                    self.latest_sheet,
                    self.num_samples,
                    self.max_diversity,
                ) = None, None, [], [], None, None, None
            if self._tail.size == self._tail.offset:
                return
            progress = b""
            for _, line in self._tail.read_lines():
                if line.startswith(PROGRESS_PREFIX):
                    progress = line
                    continue
                self._add(progress)
                progress = b""
                self._add(line)
            self._add(progress)
        except FileNotFoundError:
            return

    def _add(self, line: bytes) -> None:
        event = parse_event(line)
        if event is None:
            return
        self.scores = rewind(self.scores, event, itemgetter(0))
        self.faults = rewind(self.faults, event, attrgetter("images_seen"))
        score = finite_number(event.values.get("score"))
        if event.kind == "checkpoint" and score is not None and len(self.scores) < MAX_ENTRIES:
            self.scores.append((event.images_seen, score))
        if event.kind == "fault" and len(self.faults) < MAX_ENTRIES:
            is_fatal = event.values.get("fatal") is True
            self.faults.append(FoundFault(event.images_seen, str(event.values.get("name")), is_fatal))
        if event.kind == "progress":
            self.images_per_second = finite_number(event.values.get("images_per_second"))
            diversity = finite_number(event.values.get("diversity"))
            if diversity is not None:
                self.max_diversity = max(diversity, self.max_diversity or 0.0)
        if event.kind == "samples":
            count = finite_number(event.values.get("num_samples"))
            self.latest_sheet, self.num_samples = (
                event.images_seen,
                int(count) if count is not None and 1 <= count <= MAX_SAMPLES else self.num_samples,
            )
        self.last_event = event
