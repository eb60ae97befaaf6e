"""What training writes down while it goes on: journal lines, observations, checkpoints.

Does not know the game; reads the numbers of a step late, every few seconds, so that a GPU never waits for them.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cardigan.config import Config
from cardigan.data.source import ImageSpec
from cardigan.errors import CardiganError
from cardigan.run.checkpoint import CheckpointFacts, prune_checkpoints, save_checkpoint
from cardigan.run.directory import RunDirectory
from cardigan.run.journal import Event, Journal
from cardigan.run.snapshot import Snapshot, header, write_snapshot
from cardigan.training.budget import Clock
from cardigan.training.memory import held_megabytes
from cardigan.training.schedule import is_due
from cardigan.training.state import TrainState, state_tensors
from cardigan.training.steps import MEASURES, Measurements

PROGRESS_SECONDS = 2.0
JUDGE_SHARE = 0.1
"""Judging may take this share of a run's time; beyond it checkpoints go unjudged."""


@dataclass(frozen=True)
class Observers:
    """What looks at snapshots while a run trains; each returns numbers for the journal and can change nothing."""

    draw: Callable[[Snapshot], dict[str, int | float]]
    """Called every `sample_every` images; leaves a sample grid behind."""
    judge: Callable[[Snapshot], float] | None
    """Called at checkpoints; returns the score (lower is better) by which the best one is kept."""


@dataclass
class Recorder:
    """The only writer of a run directory. One per run, in its main process."""

    run: RunDirectory
    config: Config
    spec: ImageSpec
    clock: Clock
    observers: Observers
    report: Callable[[Event], None]
    """Told of every event after it is in the journal."""
    drawing_seconds: float = 0.5
    """How long the last sample sheet took."""
    saving_seconds: float = 1.0
    """How long a save takes, judging included: the last one, or a little less than the slowest, so that an unjudged one does not hide it."""
    _sums: Measurements | None = None
    _steps: int = 0
    _since: tuple[float, int] = (0.0, 0)
    _progress_due: float = 0.0
    _saved_at: int = -1
    _judging_seconds: float = 0.0
    _journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        self._journal = Journal(self.run.journal)

    def begin(self, state: TrainState, messages: list[str]) -> None:
        """Write down the start; a run that has nothing yet leaves its first checkpoint and pictures, which also proves that it can."""
        resumed = state.images_seen > 0
        self.event("resume" if resumed else "start", state.images_seen, {"run": str(self.run.path), "messages": messages})
        if resumed:
            self._saved_at = state.images_seen
        else:
            self.draw(state)
            self.save(state, judged=self.config.minutes is not None)  # a budget of minutes has to know what the last save will take
        self._since = (time.monotonic(), state.images_seen)

    def after_step(self, state: TrainState, before: int, measured: Measurements) -> None:
        """Take one step's numbers; do whatever came due with it."""
        self._sums = measured if self._sums is None else self._sums + measured
        self._steps += 1
        if time.monotonic() >= self._progress_due:  # the first step of all is told of at once
            self.progress(state.images_seen)
        if is_due(self.config.sample_every, before, state.images_seen):
            self.draw(state)
        if is_due(self.config.checkpoint_every, before, state.images_seen):
            self.save(state, judged=True)

    def finish(self, state: TrainState, reason: str) -> None:
        """Save everything a last time and say why the run stopped."""
        if self._saved_at != state.images_seen:
            self.draw(state)
            self.save(state, judged=True)
        self.event("stop", state.images_seen, {"reason": reason})

    def progress(self, images_seen: int) -> None:
        """Write the mean of the steps since the last line; raises CardiganError if they are not finite."""
        if self._sums is None:
            return
        now, (then, seen_then), device = time.monotonic(), self._since, self._sums.device
        values = dict(zip(MEASURES, (self._sums / self._steps).tolist(), strict=True))
        if not all(map(math.isfinite, values.values())):
            bad = ", ".join(name for name, value in values.items() if not math.isfinite(value))
            raise CardiganError(
                f"Training broke before {images_seen:,} images: {bad} is not a finite number. The checkpoints in {self.run.checkpoints} are "
                "from before; lower the learning rates, or use --precision fp32."
            )
        self._sums, self._steps, self._since, self._progress_due = None, 0, (now, images_seen), now + PROGRESS_SECONDS
        speed = (images_seen - seen_then) / max(now - then, 1e-9)
        facts = {"images_per_second": round(speed, 1), "megabytes": round(held_megabytes(device), 1)}
        self.event("progress", images_seen, {**facts, **{name: round(value, 6) for name, value in values.items()}})

    def draw(self, state: TrainState) -> None:
        began = time.monotonic()
        values = self.observers.draw(self.snapshot(state))
        self.drawing_seconds = time.monotonic() - began
        self.event("samples", state.images_seen, {"file": str(self.run.sample(state.images_seen).relative_to(self.run.path)), **values})

    def save(self, state: TrainState, judged: bool) -> None:
        """Write a checkpoint and the generator, judged if that is asked for and affordable; remove what is no longer kept."""
        self.progress(state.images_seen)  # never save a state whose numbers were not looked at
        began = time.monotonic()
        score = self._score(state) if judged else None
        facts = CheckpointFacts(state.images_seen, round(self.clock.elapsed(), 3), score)
        save_checkpoint(self.run.checkpoints, state_tensors(state), facts, header(self.config, self.spec, state.images_seen))
        write_snapshot(self.run.generator, self.snapshot(state))
        prune_checkpoints(self.run.checkpoints)
        self._saved_at, self.saving_seconds = state.images_seen, max(time.monotonic() - began, 0.8 * self.saving_seconds)
        self.event("checkpoint", state.images_seen, {"score": score} if score is not None else {})

    def snapshot(self, state: TrainState) -> Snapshot:
        return Snapshot(state.average, self.config, self.spec, state.images_seen)

    def event(self, kind: str, images_seen: int, values: dict[str, Any]) -> None:
        event = Event(kind, images_seen, self.clock.elapsed(), values)
        self._journal.append(event)
        self.report(event)

    def _score(self, state: TrainState) -> float | None:
        if self.observers.judge is None or self._judging_seconds > JUDGE_SHARE * self.clock.elapsed():
            return None
        began = time.monotonic()
        score = self.observers.judge(self.snapshot(state))
        self._judging_seconds += time.monotonic() - began
        return score
