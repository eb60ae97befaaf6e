"""The reaction to faults and scores: request a stop or a rollback, as `on_failure`, `patience_images` and
`target_score` ask for.

Knows the run's journal and checkpoints, but not how to stop or roll back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cardigan.config import Config
from cardigan.health.faults import Fault
from cardigan.health.monitor import Monitor
from cardigan.run.checkpoint import best_checkpoint
from cardigan.run.directory import RunDirectory
from cardigan.run.journal import Event, read_events

MIN_LEARNING_RATE_FACTOR = 1 / 8
"""The learning rates are halved at most three times. The next fatal fault stops the run."""


def event_metrics(event: Event) -> Mapping[str, float] | None:
    """Return the metrics of an event for the monitor, or None if it has none."""
    if event.kind not in {"progress", "checkpoint"}:
        return None
    numbers = {name: float(value) for name, value in event.values.items() if isinstance(value, int | float)}
    return numbers or None


@dataclass
class FailurePolicy:
    """The monitor of a live run, and the request that follows from its faults."""

    run: RunDirectory
    config: Config
    stop_request: str = ""
    """Why training should stop here: patience, target, failure or rollback. Default: no request."""
    fault: Fault | None = None
    """The fatal fault that caused the request."""
    monitor: Monitor = field(init=False)
    _reached_target: bool = False
    """Whether the last score was at most the target."""

    def __post_init__(self) -> None:
        self.monitor = Monitor(has_scores=True)

    def reset(self) -> None:
        """Clear the request and rebuild the monitor from the journal."""
        self.stop_request, self.fault, self.monitor = "", None, Monitor(has_scores=True)
        self._reached_target = False
        for event in read_events(self.run.journal):
            metrics = event_metrics(event)
            if metrics is not None:
                self.monitor.observe(event.images_seen, metrics)

    def observe(self, event: Event, learning_rate_factor: float) -> list[Fault]:
        """Return the faults that start with an event, and set `stop_request` if one follows."""
        metrics = event_metrics(event)
        faults = [] if metrics is None else self.monitor.observe(event.images_seen, metrics)
        self.fault = next((fault for fault in faults if fault.fatal), self.fault)
        if self.fault is not None and self.config.on_failure != "warn" and not self.stop_request:
            self.stop_request = (
                "rollback" if self._can_roll_back(event.images_seen, learning_rate_factor) else "failure"
            )
        best_step, patience = self.monitor.score_trend.best_step, self.config.patience_images
        has_new_score = metrics is not None and "score" in metrics
        if (
            not self.stop_request
            and has_new_score
            and patience is not None
            and best_step is not None
            and event.images_seen - best_step >= patience
        ):
            self.stop_request = "patience"
        target = self.config.target_score
        if metrics is not None and has_new_score and target is not None:
            was_reached, self._reached_target = self._reached_target, metrics["score"] <= target
            if was_reached and self._reached_target and not self.stop_request:
                self.stop_request = "target"
        return faults

    def _can_roll_back(self, images_seen: int, learning_rate_factor: float) -> bool:
        best = best_checkpoint(self.run.checkpoints)
        return (
            self.config.on_failure == "rollback"
            and best is not None
            and int(best.name) < images_seen
            and learning_rate_factor > MIN_LEARNING_RATE_FACTOR
        )
