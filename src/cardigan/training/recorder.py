"""What training writes down while it goes on: journal lines, observations, checkpoints.

Does not know the game; reads the numbers of a step late, every few seconds, so that a GPU never waits for them.
"""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from cardigan.config import Config
from cardigan.data.feed import Feed
from cardigan.data.source import ImageSpec
from cardigan.hardware.memory import release_memory, used_megabytes
from cardigan.objective.losses import find_loss
from cardigan.run.checkpoint import CheckpointFacts, best_checkpoint, prune_checkpoints, save_checkpoint
from cardigan.run.directory import RunDirectory
from cardigan.run.journal import Event, Journal
from cardigan.run.snapshot import Snapshot, header, read_snapshot, write_snapshot
from cardigan.shapes import Labels, Pixels
from cardigan.training.budget import Clock
from cardigan.training.faults import Fault, fault
from cardigan.training.finite import broken, not_finite
from cardigan.training.schedule import is_due, kind_of_step, learning_rates
from cardigan.training.signals import Probe
from cardigan.training.state import TrainState, state_tensors
from cardigan.training.steps import MEASURES, OF_GENERATOR, PENALTIES, Measurements
from cardigan.training.watch import Watch

PROGRESS_SECONDS = 2.0
JUDGE_SHARE = 0.1
"""Judging may take this share of a run's time; beyond it checkpoints go unjudged."""
RAW = {"d_real": "margin_real", "d_fake": "margin_fake"}
"""What beliefs are called where a loss gives them no scale: they are no probabilities, and the monitor must not read them as such."""
PROBE_SHARE = 0.02
"""So may a closer look at the game."""


Opinions: TypeAlias = Callable[[Pixels, Labels | None], list[float]]
"""D's logits for pictures."""


@dataclass(frozen=True)
class Observers:
    """What looks at snapshots while a run trains; each returns numbers for the journal and can change nothing."""

    draw: Callable[[Snapshot, Opinions], dict[str, Any]]
    """Called every `sample_every` images; leaves a sample grid behind, and returns what D makes of it."""
    judge: Callable[[Snapshot], dict[str, float]]
    """Called at checkpoints; returns `score` (lower is better), by which the best one is kept, its `score_error`, and what else it saw."""
    conclude: Callable[[Snapshot], None]
    """Called once when the run has stopped and everything is saved: writes the report. Takes about as long as judging."""


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
    probe: Probe
    """A closer look at the game; can change nothing."""
    feed: Feed | None = None
    """What pictures are waited for, if they are."""
    drawing_seconds: float = 0.5
    """How long the last sample sheet took."""
    saving_seconds: float = 1.0
    """How long a save takes, judging included: the last one, or a little less than the slowest, so that an unjudged one does not hide it."""
    _sums: Measurements | None = None
    _steps: Counter[str] = field(default_factory=Counter)
    """Steps since the last line: all, and those with penalties, and those in which G learned."""
    _since: tuple[float, int] = (0.0, 0)
    _waited: float = 0.0
    _progress_due: float = 0.0
    _saved_at: int = -1
    _judging_seconds: float = 0.0
    _judge_took: float = 0.0
    _probing_seconds: float = 0.0
    _journal: Journal = field(init=False)
    _has_scale: bool = field(init=False)
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        self._journal = Journal(self.run.journal)
        self._has_scale = find_loss(self.config.objective.loss).probability is not None
        self.watch = Watch(self.run, self.config)

    def begin(self, state: TrainState, messages: list[str]) -> None:
        """Write down the start; a run that has nothing yet leaves its first checkpoint and pictures, which also proves that it can."""
        resumed = state.images_seen > 0
        self.event("resume" if resumed else "start", state.images_seen, {"run": str(self.run.path), "messages": messages})
        self.watch.begin_anew()
        if resumed:
            self._saved_at = state.images_seen
        else:
            self.draw(state)
            self.save(state, judged=self.config.minutes is not None)  # a budget of minutes has to know what the last save will take
        self._since = (time.monotonic(), state.images_seen)

    def after_step(self, state: TrainState, before: int, measured: Measurements) -> None:
        """Take one step's numbers; do whatever came due with it."""
        self._sums = measured if self._sums is None else self._sums + measured
        kind = kind_of_step(self.config, before)
        self._steps.update({"all": 1, "penalised": int(kind.penalise), "generator": int(kind.generator_learns)})
        if time.monotonic() >= self._progress_due:  # the first step of all is told of at once
            self.progress(state)
        if is_due(self.config.sample_every, before, state.images_seen):
            self.draw(state)
        if is_due(self.config.checkpoint_every, before, state.images_seen):
            self.save(state, judged=True)

    def finish(self, state: TrainState, reason: str) -> None:
        """Save everything a last time and say why the run stopped."""
        if self._saved_at != state.images_seen:
            self.draw(state)
            self.save(state, judged=True)
        best = best_checkpoint(self.run.checkpoints) if reason in {"patience", "health"} else None
        if best is not None:  # who stops because it got worse wants what it was before
            write_snapshot(self.run.generator, read_snapshot(best))
        self.event("stop", state.images_seen, {"reason": reason} if best is None else {"reason": reason, "kept": int(best.name)})
        self.observers.conclude(self.snapshot(state) if best is None else read_snapshot(best))

    def rolled_back(self, state: TrainState, left_at: int) -> None:
        """Write down a return to the best checkpoint, and why."""
        facts = {"left_at": left_at, "learning_rate_factor": state.learning_rate_factor}
        reason = self.watch.reason
        write_snapshot(self.run.generator, self.snapshot(state))
        self.event("rollback", state.images_seen, {**facts, **({"fault": reason.name, "words": reason.words} if reason else {})})
        self._forget(state.images_seen, time.monotonic())
        self._saved_at = state.images_seen
        self.watch.begin_anew()

    def note(self, sentence: str) -> None:
        """Write down something that the user should know and that is no fault."""
        seen = self._since[1] + self._steps["all"] * self.config.batch
        self.event("note", seen, {"messages": [sentence]})

    def break_off(self, images_seen: int, bad: dict[str, float]) -> None:
        """Write down that the run ends here, because these numbers are not finite."""
        self._tell(images_seen, fault("non-finite", images_seen, bad, grave=True))

    def progress(self, state: TrainState) -> None:
        """Write the mean of the steps since the last line; raises CardiganError if they are not finite."""
        images_seen = state.images_seen
        if self._sums is None:
            return
        now, (then, seen_then), device = time.monotonic(), self._since, self._sums.device
        values = self._finite_means(images_seen) | self._probed(state)
        self._forget(images_seen, now)
        self._progress_due = now + PROGRESS_SECONDS
        speed = (images_seen - seen_then) / max(now - then, 1e-9)
        facts = {"images_per_second": round(speed, 1), "megabytes": round(used_megabytes(device), 1)}
        used = learning_rates(self.config, max(0, images_seen - self.config.batch), state.learning_rate_factor)
        facts |= {f"{player}_learning_rate": float(f"{rate:.6g}") for player, rate in used.items()}
        if self.feed is not None:
            facts["waiting_for_data"] = round((self.feed.waited_seconds - self._waited) / max(now - then, 1e-9), 3)
            self._waited = self.feed.waited_seconds
        self._watched("progress", state, {**facts, **{name: round(value, 6) for name, value in values.items()}})

    def _finite_means(self, images_seen: int) -> dict[str, float]:
        """Return the means of the steps since the last line; if they are not finite, write that down and raise CardiganError."""
        values = self._means()
        bad = not_finite(values)
        if bad:
            self.break_off(images_seen, bad)
            raise broken(images_seen, bad)
        return values

    def _means(self) -> dict[str, float]:
        """Return each measure's mean over the steps that had it; what this config never has is left out."""
        if self._sums is None:
            return {}
        means: dict[str, float] = {}
        for name, total in zip(MEASURES, self._sums.tolist(), strict=True):
            if name in PENALTIES:
                on, steps = self.config.objective.weight(name) > 0, self._steps["penalised"]
            elif name in OF_GENERATOR:
                on, steps = True, self._steps["generator"]
            else:
                on, steps = name != "augmentation" or bool(self.config.augment.operations), self._steps["all"]
            if steps and (on or not math.isfinite(total)):
                means[name] = total / steps
        if self._has_scale:
            return means
        means.pop("d_fake_after", None)  # beside real logits from before D's step it would mean nothing
        return {RAW.get(name, name): value for name, value in means.items()}

    def _forget(self, images_seen: int, now: float) -> None:
        self._sums, self._since = None, (now, images_seen)
        self._steps.clear()

    def draw(self, state: TrainState) -> None:
        """Draw a sample sheet; raises CardiganError if a step since the last look was refused, which may have spoiled batch statistics."""
        self._finite_means(state.images_seen)
        began = time.monotonic()
        values = self.observers.draw(self.snapshot(state), partial(self.probe.opinions, state))
        self.drawing_seconds = time.monotonic() - began
        self.event("samples", state.images_seen, {"file": str(self.run.sample(state.images_seen).relative_to(self.run.path)), **values})

    def save(self, state: TrainState, judged: bool) -> None:
        """Write a checkpoint and the generator, judged if that is asked for and affordable; remove what is no longer kept."""
        self.progress(state)  # never save a state whose numbers were not looked at
        began = time.monotonic()
        verdict = self._verdict(state) if judged else {}
        facts = CheckpointFacts(state.images_seen, round(self.clock.elapsed(), 3), verdict.get("score"), state.learning_rate_factor)
        save_checkpoint(self.run.checkpoints, state_tensors(state), facts, header(self.config, self.spec, state.images_seen))
        write_snapshot(self.run.generator, self.snapshot(state))
        prune_checkpoints(self.run.checkpoints)
        self._saved_at, self.saving_seconds = state.images_seen, max(time.monotonic() - began, 0.8 * self.saving_seconds)
        self._watched("checkpoint", state, verdict)

    def leaving_seconds(self) -> float:
        """Return what the last sample sheet, the last save and the report will take; the report judges once more, and a little more."""
        return self.drawing_seconds + self.saving_seconds + 1.5 * self._judge_took

    def snapshot(self, state: TrainState) -> Snapshot:
        return Snapshot(state.average, self.config, self.spec, state.images_seen)

    def _watched(self, kind: str, state: TrainState, values: dict[str, Any]) -> None:
        """Write an event down, and the faults that begin with it."""
        for found in self.watch.after(self.event(kind, state.images_seen, values), state.learning_rate_factor):
            self._tell(state.images_seen, found)

    def _tell(self, images_seen: int, found: Fault) -> None:
        numbers = {"name": found.name, "grave": found.grave, "evidence": dict(found.evidence), "words": found.words, "advice": found.advice}
        self.event("fault", images_seen, numbers)

    def event(self, kind: str, images_seen: int, values: dict[str, Any]) -> Event:
        event = Event(kind, images_seen, self.clock.elapsed(), values)
        self._journal.append(event)
        self.report(event)
        return event

    def _probed(self, state: TrainState) -> dict[str, float]:
        if self._probing_seconds > PROBE_SHARE * self.clock.elapsed():
            return {}
        began = time.monotonic()
        values = self.probe(state)
        self._probing_seconds += time.monotonic() - began
        return values

    def _verdict(self, state: TrainState) -> dict[str, float]:
        if self._judging_seconds > JUDGE_SHARE * self.clock.elapsed():
            return {}
        began = time.monotonic()
        verdict = self.observers.judge(self.snapshot(state))
        release_memory()  # a judgement's memory lies elsewhere than a step's, and would be kept beside it
        self._judge_took = time.monotonic() - began
        self._judging_seconds += self._judge_took
        return {name: value for name, value in verdict.items() if math.isfinite(value)}
