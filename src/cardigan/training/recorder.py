"""What training writes while it runs: journal lines, samples, checkpoints.

Reads a step's metrics only every few seconds, so that a GPU does not wait. Does not know how a step works.
"""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

from cardigan.config import Config
from cardigan.data.prefetch import Prefetcher
from cardigan.data.source import ImageSpec
from cardigan.hardware.memory import release_memory, used_megabytes
from cardigan.health.faults import Fault, make_fault
from cardigan.health.policy import FailurePolicy
from cardigan.models.snapshot import Snapshot, read_snapshot, snapshot_metadata, write_snapshot
from cardigan.nets.interface import Generator
from cardigan.objective.losses import find_loss
from cardigan.run.checkpoint import CheckpointMetadata, best_checkpoint, prune_checkpoints, save_checkpoint
from cardigan.run.directory import RunDirectory
from cardigan.run.integrity import config_sha256, source_sha256
from cardigan.run.journal import Event, Journal
from cardigan.shapes import Labels, Pixels
from cardigan.training.budget import Clock, Reserve
from cardigan.training.ema import with_own_statistics
from cardigan.training.finite import nonfinite_error, nonfinite_values
from cardigan.training.probe import TrainingProbe
from cardigan.training.schedule import is_due, learning_rates, step_kind
from cardigan.training.state import TrainState, state_tensors
from cardigan.training.step_types import GENERATOR_METRICS, StepMetrics, metric_names

PROGRESS_SECONDS = 2.0
MAX_EVALUATION_FRACTION = 0.1
"""Maximum fraction of a run's time for evaluation. Beyond it checkpoints are not evaluated, unless the run stops at a
target score."""
MAX_SINGLE_EVALUATION_FRACTION = 1 / 8
"""If one evaluation takes more than this fraction of a budget of minutes, checkpoints are not evaluated at all."""
SLOW_FRACTION, NUM_SLOW_READINGS = 0.5, 3
"""A run is slow if this many consecutive progress lines are below this fraction of the measured throughput."""
REPORT_EVALUATIONS = 1.5
"""Duration of an evaluated report, in evaluations."""
MARGIN_NAMES = {"d_real": "margin_real", "d_fake": "margin_fake"}
"""Metric names for losses without probabilities. The monitor must not interpret these values as probabilities."""
MAX_PROBE_FRACTION = 0.02
"""Maximum fraction of a run's time for the training probe."""


LogitsFn: TypeAlias = Callable[[Pixels, Labels | None], list[float]]
"""Returns D's logits for images."""


@dataclass(frozen=True)
class Callbacks:
    """Functions that evaluate snapshots during training. They cannot change the training."""

    write_samples: Callable[[Snapshot, LogitsFn], dict[str, Any]]
    """Called every `sample_every_images` images. Writes a sample grid and returns D's logits for it."""
    evaluate: Callable[[Snapshot], dict[str, float]]
    """Called at checkpoints. Returns `score` (lower is better; selects the best checkpoint), `score_standard_error` and
    other metrics."""
    evaluation_seconds: Callable[[Snapshot], float]
    """Returns how long an evaluation is expected to take, measured on a few images."""
    write_report: Callable[[Snapshot, bool], None]
    """Called once after the run has stopped and is saved. Writes the report, evaluated if the second argument is true,
    which takes about as long as an evaluation."""


@dataclass
class Recorder:
    """Writes the run directory. There is one per run, in the main process."""

    run: RunDirectory
    config: Config
    spec: ImageSpec
    clock: Clock
    callbacks: Callbacks
    on_event: Callable[[Event], None]
    """Called with every event after it is in the journal."""
    probe: TrainingProbe
    prefetcher: Prefetcher | None = None
    """The source of the data wait time. None if the images are on the device."""
    measured_throughput: float | None = None
    """Images per second that were measured before the start and that the choice of settings relies on."""
    sample_seconds: float = 0.5
    """Duration of the last sample grid."""
    checkpoint_seconds: float = 1.0
    """Duration of a save without evaluation: the last one, or 0.8 times the previous value if that is longer."""
    _metric_sums: StepMetrics | None = None
    _step_counts: Counter[str] = field(default_factory=Counter)
    """Steps since the last progress line: all, those with penalties, and those that updated G."""
    _last_progress: tuple[float, int] = (0.0, 0)
    _data_wait_seconds: float = 0.0
    _next_progress_time: float = 0.0
    _saved_images_seen: int = -1
    _evaluation_seconds: float = 0.0
    _expected_evaluation_seconds: float = 0.0
    """Duration of the last evaluation, or an estimate before the first one."""
    _evaluation_seconds_before_training: float = 0.0
    _has_noted_skipped_evaluation: bool = False
    _num_slow_readings: int = 0
    _probe_seconds: float = 0.0
    _recorded_generator: tuple[int, Generator] | None = None
    """The last generator with its own batch statistics, and the images seen then."""
    _journal: Journal = field(init=False)
    _has_probability: bool = field(init=False)
    _source_sha256: str = field(init=False)
    failure_policy: FailurePolicy = field(init=False)

    def __post_init__(self) -> None:
        self._journal = Journal(self.run.journal)
        self._has_probability = find_loss(self.config.objective.loss).probability is not None
        self._source_sha256 = source_sha256(self.run)
        self.failure_policy = FailurePolicy(self.run, self.config)

    def start(self, state: TrainState, messages: list[str]) -> None:
        """Record the start. A new run also writes its first samples and checkpoint, which shows early that it can."""
        resumed = state.images_seen > 0
        if self.config.minutes is not None:
            self._expected_evaluation_seconds = self.callbacks.evaluation_seconds(self.snapshot(state))
        self.write_event(
            "resume" if resumed else "start", state.images_seen, {"run": str(self.run.path), "messages": messages}
        )
        self.failure_policy.reset()
        if resumed:
            self._saved_images_seen = state.images_seen
        else:
            self.write_samples(state)
            # A budget in minutes needs to know how long the last save will take.
            self.save_checkpoint(state, evaluate=self.config.minutes is not None)
        self._last_progress = (time.monotonic(), state.images_seen)
        self._evaluation_seconds_before_training = self._evaluation_seconds
        if not self._fits_budget():
            self._note_skipped_evaluation()

    def after_step(self, state: TrainState, images_before: int, metrics: StepMetrics) -> None:
        """Add one step's metrics. Write progress, samples and a checkpoint if they are due."""
        self._metric_sums = metrics if self._metric_sums is None else self._metric_sums + metrics
        kind = step_kind(self.config, images_before)
        self._step_counts.update(
            {"all": 1, "penalized": int(kind.apply_penalties), "generator": int(kind.update_generator)}
        )
        if time.monotonic() >= self._next_progress_time:  # the first step is reported at once
            self.write_progress(state)
        if is_due(self.config.sample_every_images, images_before, state.images_seen):
            self.write_samples(state)
        if is_due(self.config.checkpoint_every_images, images_before, state.images_seen):
            self.save_checkpoint(state, evaluate=True)

    def finish(self, state: TrainState, reason: str) -> None:
        """Save the last state, record why the run stopped and write the report. Evaluate only what time allows."""
        if self._saved_images_seen != state.images_seen:
            self.write_samples(state)
            seconds_left = self._seconds_left() - self.checkpoint_seconds
            can_evaluate = seconds_left >= self._expected_evaluation_seconds
            self.save_checkpoint(state, evaluate=can_evaluate)
            if not can_evaluate:
                self._note_skipped_evaluation()
        best = best_checkpoint(self.run.checkpoints) if reason in {"patience", "failure"} else None
        if best is not None:  # the run got worse, so the generator is that of the best checkpoint
            write_snapshot(self.run.generator, read_snapshot(best))
        self.write_event(
            "stop",
            state.images_seen,
            {"reason": reason} if best is None else {"reason": reason, "best_images_seen": int(best.name)},
        )
        self.callbacks.write_report(
            self.snapshot(state) if best is None else read_snapshot(best),
            self._seconds_left() >= REPORT_EVALUATIONS * self._expected_evaluation_seconds,
        )

    def record_rollback(self, state: TrainState, rolled_back_from: int) -> None:
        """Record a rollback to the best checkpoint and its cause."""
        fields = {"rolled_back_from": rolled_back_from, "learning_rate_factor": state.learning_rate_factor}
        fault = self.failure_policy.fault
        write_snapshot(self.run.generator, self.snapshot(state))
        self.write_event(
            "rollback",
            state.images_seen,
            {**fields, **({"fault": fault.name, "message": fault.message} if fault else {})},
        )
        self._reset_sums(state.images_seen, time.monotonic())
        self._saved_images_seen = state.images_seen
        self.failure_policy.reset()

    def note(self, sentence: str) -> None:
        """Record a message for the user that is not a fault."""
        images_seen = self._last_progress[1] + self._step_counts["all"] * self.config.batch_size
        self.write_event("note", images_seen, {"messages": [sentence]})

    def abort(self, images_seen: int, nonfinite: dict[str, float]) -> None:
        """Record that the run ends here because these values are not finite."""
        self._write_fault(images_seen, make_fault("non-finite", images_seen, nonfinite, fatal=True))

    def write_progress(self, state: TrainState) -> None:
        """Write the mean metrics since the last progress line. Raises CardiganError if they are not finite."""
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
        self._note_if_slow(images_per_second)
        self._write_and_check(
            "progress", state, {**fields, **{name: round(value, 6) for name, value in values.items()}}
        )

    def _note_skipped_evaluation(self) -> None:
        """Tell the user once that checkpoints are not evaluated from here on."""
        if not self._has_noted_skipped_evaluation:
            self._has_noted_skipped_evaluation = True
            self.note(
                f"an evaluation takes about {self._expected_evaluation_seconds:,.1f} s, too long for what is left of "
                "the time budget: this checkpoint is not evaluated (cardigan evaluate does it afterwards)"
            )

    def _note_if_slow(self, images_per_second: float) -> None:
        """Tell the user once that the run is much slower than the measurement that its settings were chosen by."""
        if self.measured_throughput is None or self._num_slow_readings == NUM_SLOW_READINGS:
            return
        is_slow = images_per_second < SLOW_FRACTION * self.measured_throughput
        self._num_slow_readings = self._num_slow_readings + 1 if is_slow else 0
        if self._num_slow_readings == NUM_SLOW_READINGS:
            self.note(
                f"slower than measured: {images_per_second:,.0f} images/s instead of {self.measured_throughput:,.0f}; "
                "other programs may use this machine"
            )

    def _finite_means(self, images_seen: int) -> dict[str, float]:
        """Return the mean metrics since the last progress line. If they are not finite, record that and raise."""
        values = self._mean_metrics()
        nonfinite = nonfinite_values(values)
        if nonfinite:
            self.abort(images_seen, nonfinite)
            raise nonfinite_error(images_seen, nonfinite)
        return values

    def _mean_metrics(self) -> dict[str, float]:
        """Return each metric's mean over the steps that had it. Metrics that this config never has are omitted."""
        if self._metric_sums is None:
            return {}
        means: dict[str, float] = {}
        for name, total in zip(metric_names(self.config.objective), self._metric_sums.tolist(), strict=True):
            if name in self.config.objective.penalties:
                active, steps = True, self._step_counts["penalized"]
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
        means.pop("d_fake_after_update", None)  # a margin against real logits from before D's update means nothing
        return {MARGIN_NAMES.get(name, name): value for name, value in means.items()}

    def _reset_sums(self, images_seen: int, now: float) -> None:
        self._metric_sums, self._last_progress = None, (now, images_seen)
        self._step_counts.clear()

    def write_samples(self, state: TrainState) -> None:
        """Write a sample grid. Raises CardiganError if metrics are not finite: batch statistics may then be damaged."""
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
        """Write a checkpoint and the generator, evaluated if requested and affordable. Remove old checkpoints."""
        self.write_progress(state)  # checks that the metrics are finite before anything is saved
        scores = self._evaluate(state) if evaluate else {}
        started_at = time.monotonic()
        metadata = CheckpointMetadata(
            state.images_seen,
            round(self.clock.elapsed_seconds(), 3),
            scores.get("score"),
            state.learning_rate_factor,
            config_sha256(self.config),
            self._source_sha256,
        )
        save_checkpoint(
            self.run.checkpoints,
            state_tensors(replace(state, ema_generator=self._generator(state))),
            metadata,
            snapshot_metadata(self.config, self.spec, state.images_seen),
        )
        write_snapshot(self.run.generator, self.snapshot(state))
        prune_checkpoints(self.run.checkpoints)
        self._saved_images_seen, self.checkpoint_seconds = (
            state.images_seen,
            max(time.monotonic() - started_at, 0.8 * self.checkpoint_seconds),
        )
        self._write_and_check("checkpoint", state, scores)

    def reserve(self, step_seconds: float) -> Reserve:
        """Return the expected duration of one more step and of what follows the last one."""
        save_seconds = step_seconds + self.sample_seconds + self.checkpoint_seconds
        num_evaluations = REPORT_EVALUATIONS + 1 if self._fits_budget() else 0
        return Reserve(
            save_seconds + num_evaluations * self._expected_evaluation_seconds,
            save_seconds,
            self._evaluation_seconds - self._evaluation_seconds_before_training,
        )

    def _seconds_left(self) -> float:
        return math.inf if self.config.minutes is None else self.config.minutes * 60 - self.clock.elapsed_seconds()

    def _fits_budget(self) -> bool:
        """Return whether checkpoints can be evaluated within the budget."""
        return (
            self.config.minutes is None
            or self._expected_evaluation_seconds <= MAX_SINGLE_EVALUATION_FRACTION * self.config.minutes * 60
        )

    def snapshot(self, state: TrainState) -> Snapshot:
        return Snapshot(self._generator(state), self.config, self.spec, state.images_seen)

    def _generator(self, state: TrainState) -> Generator:
        """Return the EMA generator, or a copy with its own batch statistics if the config asks for them.

        A copy, because the state of all processes must stay the same, and only the main one records.
        """
        if not self.config.ema.statistics_samples:
            return state.ema_generator
        if self._recorded_generator is None or self._recorded_generator[0] != state.images_seen:
            self._recorded_generator = (
                state.images_seen,
                with_own_statistics(state.ema_generator, self.config, self.spec),
            )
        return self._recorded_generator[1]

    def _write_and_check(self, kind: str, state: TrainState, values: dict[str, Any]) -> None:
        """Write an event and the faults that start with it."""
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
        is_affordable = self._evaluation_seconds <= MAX_EVALUATION_FRACTION * self.clock.elapsed_seconds()
        if not (is_affordable or self.config.target_score is not None) or not self._fits_budget():
            return {}
        started_at = time.monotonic()
        scores = self.callbacks.evaluate(self.snapshot(state))
        release_memory()  # an evaluation uses other memory blocks than a step, and they would be kept in addition
        self._expected_evaluation_seconds = time.monotonic() - started_at
        self._evaluation_seconds += self._expected_evaluation_seconds
        scores = {**scores, "evaluation_seconds": round(self._expected_evaluation_seconds, 3)}
        return {name: value for name, value in scores.items() if math.isfinite(value)}
