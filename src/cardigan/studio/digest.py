"""The few facts of a run's journal that a table of runs shows: where it is, its scores, its faults, how it ended.

Looks into progress lines only as far as the last one, so that a folder of thousands of runs is read in seconds.
"""

import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cardigan.run.journal import Event
from cardigan.studio.journal import PROGRESS, Lines, number, parsed

MAX_KEPT = 10_000
MAX_SAMPLES = 4_096


@dataclass
class Digest:
    """What is known of a run from its journal so far."""

    path: Path
    last: Event | None = None
    """The last event of any kind."""
    speed: float | None = None
    """Images per second in the last line that says so."""
    scores: list[tuple[int, float]] = field(default_factory=list)
    """(images_seen, score) of every judged checkpoint of the run as it finally went."""
    faults: list[tuple[int, str, bool]] = field(default_factory=list)
    """(images_seen, name, whether it is grave)."""
    sheet: int | None = None
    """The images_seen of the newest sample sheet."""
    num_samples: int | None = None
    """How many generated pictures are on it."""
    lock: AbstractContextManager[Any] = field(default_factory=threading.RLock, repr=False)
    """To be held while the digest is read or looked at."""
    _lines: Lines = field(init=False)

    def __post_init__(self) -> None:
        self._lines = Lines(self.path)

    @property
    def offset(self) -> int:
        """Bytes of the journal that have been read."""
        return self._lines.offset

    def read(self) -> None:
        """Take what is new in the journal; a missing one is an empty one."""
        try:
            if self._lines.begun_anew():
                self.last, self.speed, self.scores, self.faults, self.sheet, self.num_samples = None, None, [], [], None, None
            if self._lines.size == self._lines.offset:
                return
            progress = b""
            for _, line in self._lines.new():
                if line.startswith(PROGRESS):
                    progress = line
                    continue
                self._take(progress)
                progress = b""
                self._take(line)
            self._take(progress)
        except FileNotFoundError:
            return

    def _take(self, line: bytes) -> None:
        event = parsed(line)
        if event is None:
            return
        if event.kind in {"resume", "rollback"}:
            self.scores = [known for known in self.scores if known[0] <= event.images_seen]
            self.faults = [known for known in self.faults if known[0] <= event.images_seen]
        score = number(event.values.get("score"))
        if event.kind == "checkpoint" and score is not None and len(self.scores) < MAX_KEPT:
            self.scores.append((event.images_seen, score))
        if event.kind == "fault" and len(self.faults) < MAX_KEPT:
            self.faults.append((event.images_seen, str(event.values.get("name")), event.values.get("grave") is True))
        if event.kind == "progress":
            self.speed = number(event.values.get("images_per_second"))
        if event.kind == "samples":
            count = number(event.values.get("num_samples"))
            self.sheet, self.num_samples = event.images_seen, int(count) if count is not None and 1 <= count <= MAX_SAMPLES else self.num_samples
        self.last = event
