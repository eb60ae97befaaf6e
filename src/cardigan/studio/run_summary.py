"""The few facts of a run's journal that a table of runs shows: where it is, its scores, its faults, how it ended.

Looks into progress lines only as far as the last one, so that a folder of thousands of runs is read in seconds.
"""

import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cardigan.run.journal import Event
from cardigan.studio.journal_tail import PROGRESS_PREFIX, TailReader, finite_number, parse_event

MAX_ENTRIES = 10_000
MAX_SAMPLES = 4_096


@dataclass
class RunSummary:
    """What is known of a run from its journal so far."""

    path: Path
    last_event: Event | None = None
    """The last event of any kind."""
    images_per_second: float | None = None
    """Images per second in the last line that says so."""
    scores: list[tuple[int, float]] = field(default_factory=list)
    """(images_seen, score) of every judged checkpoint of the run as it finally went."""
    faults: list[tuple[int, str, bool]] = field(default_factory=list)
    """(images_seen, name, whether it is fatal)."""
    latest_sheet: int | None = None
    """The images_seen of the newest sample sheet."""
    num_samples: int | None = None
    """How many generated pictures are on it."""
    lock: AbstractContextManager[Any] = field(default_factory=threading.RLock, repr=False)
    """To be held while the digest is read or looked at."""
    _tail: TailReader = field(init=False)

    def __post_init__(self) -> None:
        self._tail = TailReader(self.path)

    @property
    def offset(self) -> int:
        """Bytes of the journal that have been read."""
        return self._tail.offset

    def update(self) -> None:
        """Take what is new in the journal; a missing one is an empty one."""
        try:
            if self._tail.reset_if_replaced():
                (
                    self.last_event,
                    self.images_per_second,
                    self.scores,
                    self.faults,
                    self.latest_sheet,
                    self.num_samples,
                ) = None, None, [], [], None, None
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
        if event.kind in {"resume", "rollback"}:
            self.scores = [entry for entry in self.scores if entry[0] <= event.images_seen]
            self.faults = [known for known in self.faults if known[0] <= event.images_seen]
        score = finite_number(event.values.get("score"))
        if event.kind == "checkpoint" and score is not None and len(self.scores) < MAX_ENTRIES:
            self.scores.append((event.images_seen, score))
        if event.kind == "fault" and len(self.faults) < MAX_ENTRIES:
            self.faults.append((event.images_seen, str(event.values.get("name")), event.values.get("fatal") is True))
        if event.kind == "progress":
            self.images_per_second = finite_number(event.values.get("images_per_second"))
        if event.kind == "samples":
            count = finite_number(event.values.get("num_samples"))
            self.latest_sheet, self.num_samples = (
                event.images_seen,
                int(count) if count is not None and 1 <= count <= MAX_SAMPLES else self.num_samples,
            )
        self.last_event = event
