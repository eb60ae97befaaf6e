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
from cardigan.data.prefetch import Prefetcher
from cardigan.data.source import ImageSpec
from cardigan.hardware.memory import release_memory, used_megabytes
from cardigan.health.faults import Fault, make_fault
from cardigan.health.policy import FailurePolicy
from cardigan.models.snapshot import Snapshot, read_snapshot, snapshot_metadata, write_snapshot
from cardigan.objective.losses import find_loss
from cardigan.run.checkpoint import CheckpointMetadata, best_checkpoint, prune_checkpoints, save_checkpoint
from cardigan.run.directory import RunDirectory
from cardigan.run.journal import Event, Journal
from cardigan.shapes import Labels, Pixels
from cardigan.training.budget import Clock
from cardigan.training.finite import nonfinite_error, nonfinite_values
from cardigan.training.probe import TrainingProbe
from cardigan.training.schedule import is_due, learning_rates, step_kind
from cardigan.training.state import TrainState, state_tensors
from cardigan.training.steps import GENERATOR_METRICS, PENALTIES, STEP_METRICS, StepMetrics

PROGRESS_SECONDS = 2.0
MAX_EVALUATION_FRACTION = 0.1
"""Judging may take this share of a run's time; beyond it checkpoints go unjudged."""
MARGIN_NAMES = {"d_real": "margin_real", "d_fake": "margin_fake"}
"""What beliefs are called where a loss gives them no scale: they are no probabilities, and the monitor must not read them as such."""
MAX_PROBE_FRACTION = 0.02
"""So may a closer look at the game."""


LogitsFn: TypeAlias = Callable[[Pixels, Labels | None], list[float]]
"""D's logits for pictures."""


@dataclass(frozen=True)
class Callbacks:
    """What looks at snapshots while a run trains; each returns numbers for the journal and can change nothing."""

    write_samples: Callable[[Snapshot, LogitsFn], dict[str, Any]]
    """Called every `sample_every_images` images; leaves a sample grid behind, and returns what D makes of it."""
    evaluate: Callable[[Snapshot], dict[str, float]]
    """Called at checkpoints; returns `score` (lower is better), by which the best one is kept, its `score_standard_error`, and what else it saw."""
    write_report: Callable[[Snapshot], None]
    """Called once when the run has stopped and everything is saved: writes the report. Takes about as long as judging."""


@dataclass
class Recorder:
    """The only writer of a run directory. One per run, in its main process."""

    run: RunDirectory
    config: Config
    spec: ImageSpec
    clock: Clock
    callbacks: Callbacks
    on_event: Callable[[Event], None]
    """Told of every event after it is in the journal."""
    probe: TrainingProbe
    """A closer look at the game; can change nothing."""
    prefetcher: Prefetcher | None = None
    """What pictures are waited for, if they are."""
    sample_seconds: float = 0.5
    """How long the last sample sheet took."""
    checkpoint_seconds: float = 1.0
    """How long a save takes, judging included: the last one, or a little less than the slowest, so that an unjudged one does not hide it."""
    _metric_sums: StepMetrics | None = None
    _step_counts: Counter[str] = field(default_factory=Counter)
    """Steps since the last line: all, and those with penalties, and those in which G learned."""
    _last_progress: tuple[float, int] = (0.0, 0)
    _data_wait_seconds: float = 0.0
    _next_progress_time: float = 0.0
    _saved_images_seen: int = -1
    _evaluation_seconds: float = 0.0
    _last_evaluation_seconds: float = 0.0
    _probe_seconds: float = 0.0
    _journal: Journal = field(init=False)
    _has_probability: bool = field(init=False)
    failure_policy: FailurePolicy = field(init=False)

    def __post_init__(self) -> None:
        self._journal = Journal(self.run.journal)
        self._has_probability = find_loss(self.config.objective.loss).probability is not None
        self.failure_policy = FailurePolicy(self.run, self.config)

    def start(self, state: TrainState, messages: list[str]) -> None:
        """Write down the start; a run that has nothing yet leaves its first checkpoint and pictures, which also proves that it can."""
        resumed = state.images_seen > 0
        self.write_event(
            "resume" if resumed else "start", state.images_seen, {"run": str(self.run.path), "messages": messages}
        )
        self.failure_policy.reset()
        if resumed:
            self._saved_images_seen = state.images_seen
        else:
            self.write_samples(state)
            self.save_checkpoint(
                state, evaluate=self.config.minutes is not None
            )  # a budget of minutes has to know what the last save will take
        self._last_progress = (time.monotonic(), state.images_seen)

    def after_step(self, state: TrainState, images_before: int, metrics: StepMetrics) -> None:
        """Take one step's numbers; do whatever came due with it."""
        self._metric_sums = metrics if self._metric_sums is None else self._metric_sums + metrics
        kind = step_kind(self.config, images_before)
        self._step_counts.update(
            {"all": 1, "penalized": int(kind.apply_penalties), "generator": int(kind.update_generator)}
        )
        if time.monotonic() >= self._next_progress_time:  # the first step of all is told of at once
            self.write_progress(state)
        if is_due(self.config.sample_every_images, images_before, state.images_seen):
            self.write_samples(state)
        if is_due(self.config.checkpoint_every_images, images_before, state.images_seen):
            self.save_checkpoint(state, evaluate=True)

    def finish(self, state: TrainState, reason: str) -> None:
        """Save everything a last time and say why the run stopped."""
        if self._saved_images_seen != state.images_seen:
            self.write_samples(state)
            self.save_checkpoint(state, evaluate=True)
        best = best_checkpoint(self.run.checkpoints) if reason in {"patience", "failure"} else None
        if best is not None:  # who stops because it got worse wants what it was before
            write_snapshot(self.run.generator, read_snapshot(best))
        self.write_event(
            "stop",
            state.images_seen,
            {"reason": reason} if best is None else {"reason": reason, "best_images_seen": int(best.name)},
        )
        self.callbacks.write_report(self.snapshot(state) if best is None else read_snapshot(best))

    def record_rollback(self, state: TrainState, rolled_back_from: int) -> None:
        """Write down a return to the best checkpoint, and why."""
        fields = {"rolled_back_from": rolled_back_from, "learning_rate_factor": state.learning_rate_factor}
        reason = self.failure_policy.fault
        write_snapshot(self.run.generator, self.snapshot(state))
        self.write_event(
            "rollback",
            state.images_seen,
            {**fields, **({"fault": reason.name, "message": reason.message} if reason else {})},
        )
        self._reset_sums(state.images_seen, time.monotonic())
        self._saved_images_seen = state.images_seen
        self.failure_policy.reset()

    def note(self, sentence: str) -> None:
        """Write down something that the user should know and that is no fault."""
        seen = self._last_progress[1] + self._step_counts["all"] * self.config.batch_size
        self.write_event("note", seen, {"messages": [sentence]})

    def abort(self, images_seen: int, nonfinite: dict[str, float]) -> None:
        """Write down that the run ends here, because these numbers are not finite."""
        self._write_fault(images_seen, make_fault("non-finite", images_seen, nonfinite, fatal=True))

    def write_progress(self, state: TrainState) -> None:
        """Write the mean of the steps since the last line; raises CardiganError if they are not finite."""
        images_seen = state.images_seen
        if self._metric_sums is None:
            return
        now, (last_time, last_images_seen), device = time.monotonic(), self._last_progress, self._metric_sums.device
        values = self._finite_means(images_seen) | self._probe_metrics(state)
        self._reset_sums(images_seen, now)
        self._next_progress_time = now + PROGRESS_SECONDS
        images_per_second = (images_seen - last_images_seen) / max(now - last_time, 1e-9)
        fields = {
            "images_per_second": round(images_per_second, 1),
            "memory_megabytes": round(used_megabytes(device), 1),
        }
        rates = learning_rates(self.config, max(0, images_seen - self.config.batch_size), state.learning_rate_factor)
        fields |= {f"{network}_learning_rate": float(f"{rate:.6g}") for network, rate in rates.items()}
        if self.prefetcher is not None:
            fields["data_wait_fraction"] = round(
                (self.prefetcher.wait_seconds - self._data_wait_seconds) / max(now - last_time, 1e-9), 3
            )
            self._data_wait_seconds = self.prefetcher.wait_seconds
        self._write_and_check(
            "progress", state, {**fields, **{name: round(value, 6) for name, value in values.items()}}
        )

    def _finite_means(self, images_seen: int) -> dict[str, float]:
        """Return the means of the steps since the last line; if they are not finite, write that down and raise CardiganError."""
        values = self._mean_metrics()
        bad = nonfinite_values(values)
        if bad:
            self.abort(images_seen, bad)
            raise nonfinite_error(images_seen, bad)
        return values

    def _mean_metrics(self) -> dict[str, float]:
        """Return each measure's mean over the steps that had it; what this config never has is left out."""
        if self._metric_sums is None:
            return {}
        means: dict[str, float] = {}
        for name, total in zip(STEP_METRICS, self._metric_sums.tolist(), strict=True):
            if name in PENALTIES:
                active, steps = self.config.objective.penalty_weight(name) > 0, self._step_counts["penalized"]
            elif name in GENERATOR_METRICS:
                active, steps = True, self._step_counts["generator"]
            else:
                active, steps = (
                    name != "augment_probability" or bool(self.config.augment.operations),
                    self._step_counts["all"],
                )
            if steps and (active or not math.isfinite(total)):
                means[name] = total / steps
        if self._has_probability:
            return means
        means.pop("d_fake_after_update", None)  # beside real logits from before D's step it would mean nothing
        return {MARGIN_NAMES.get(name, name): value for name, value in means.items()}

    def _reset_sums(self, images_seen: int, now: float) -> None:
        self._metric_sums, self._last_progress = None, (now, images_seen)
        self._step_counts.clear()

    def write_samples(self, state: TrainState) -> None:
        """Draw a sample sheet; raises CardiganError if a step since the last look was refused, which may have spoiled batch statistics."""
        self._finite_means(state.images_seen)
        started_at = time.monotonic()
        values = self.callbacks.write_samples(self.snapshot(state), partial(self.probe.logits, state))
        self.sample_seconds = time.monotonic() - started_at
        self.write_event(
            "samples",
            state.images_seen,
            {"file": str(self.run.sample_path(state.images_seen).relative_to(self.run.path)), **values},
        )

    def save_checkpoint(self, state: TrainState, evaluate: bool) -> None:
        """Write a checkpoint and the generator, judged if that is asked for and affordable; remove what is no longer kept."""
        self.write_progress(state)  # never save a state whose numbers were not looked at
        started_at = time.monotonic()
        scores = self._evaluate(state) if evaluate else {}
        facts = CheckpointMetadata(
            state.images_seen, round(self.clock.elapsed_seconds(), 3), scores.get("score"), state.learning_rate_factor
        )
        save_checkpoint(
            self.run.checkpoints,
            state_tensors(state),
            facts,
            snapshot_metadata(self.config, self.spec, state.images_seen),
        )
        write_snapshot(self.run.generator, self.snapshot(state))
        prune_checkpoints(self.run.checkpoints)
        self._saved_images_seen, self.checkpoint_seconds = (
            state.images_seen,
            max(time.monotonic() - started_at, 0.8 * self.checkpoint_seconds),
        )
        self._write_and_check("checkpoint", state, scores)

    def finish_seconds(self) -> float:
        """Return what the last sample sheet, the last save and the report will take; the report judges once more, and a little more."""
        return self.sample_seconds + self.checkpoint_seconds + 1.5 * self._last_evaluation_seconds

    def snapshot(self, state: TrainState) -> Snapshot:
        return Snapshot(state.ema_generator, self.config, self.spec, state.images_seen)

    def _write_and_check(self, kind: str, state: TrainState, values: dict[str, Any]) -> None:
        """Write an event down, and the faults that begin with it."""
        for fault in self.failure_policy.observe(
            self.write_event(kind, state.images_seen, values), state.learning_rate_factor
        ):
            self._write_fault(state.images_seen, fault)

    def _write_fault(self, images_seen: int, fault: Fault) -> None:
        values = {
            "name": fault.name,
            "fatal": fault.fatal,
            "evidence": dict(fault.evidence),
            "message": fault.message,
            "advice": fault.advice,
        }
        self.write_event("fault", images_seen, values)

    def write_event(self, kind: str, images_seen: int, values: dict[str, Any]) -> Event:
        event = Event(kind, images_seen, self.clock.elapsed_seconds(), values)
        self._journal.append(event)
        self.on_event(event)
        return event

    def _probe_metrics(self, state: TrainState) -> dict[str, float]:
        if self._probe_seconds > MAX_PROBE_FRACTION * self.clock.elapsed_seconds():
            return {}
        started_at = time.monotonic()
        values = self.probe(state)
        self._probe_seconds += time.monotonic() - started_at
        return values

    def _evaluate(self, state: TrainState) -> dict[str, float]:
        if self._evaluation_seconds > MAX_EVALUATION_FRACTION * self.clock.elapsed_seconds():
            return {}
        started_at = time.monotonic()
        scores = self.callbacks.evaluate(self.snapshot(state))
        release_memory()  # a judgement's memory lies elsewhere than a step's, and would be kept beside it
        self._last_evaluation_seconds = time.monotonic() - started_at
        self._evaluation_seconds += self._last_evaluation_seconds
        return {name: value for name, value in scores.items() if math.isfinite(value)}
