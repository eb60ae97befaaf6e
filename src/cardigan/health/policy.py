"""From faults to deeds: what a run asks for when its monitor finds something, as `on_failure` and `patience_images` say.

Knows the run's journal and checkpoints, not how to stop or go back.
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
"""After three rollbacks the learning rates are not halved again: the run stops."""


def event_metrics(event: Event) -> Mapping[str, float] | None:
    """Return the numbers that an event tells the monitor, None if it tells none."""
    if event.kind not in {"progress", "checkpoint"}:
        return None
    numbers = {name: float(value) for name, value in event.values.items() if isinstance(value, int | float)}
    return numbers or None


@dataclass
class FailurePolicy:
    """The monitor of a live run, and what it leads to."""

    run: RunDirectory
    config: Config
    stop_request: str = ""
    """What should end the training here: patience, failure or rollback; "" for nothing."""
    fault: Fault | None = None
    """The fault behind it."""
    monitor: Monitor = field(init=False)

    def __post_init__(self) -> None:
        self.monitor = Monitor(has_scores=True)

    def reset(self) -> None:
        """Know what the journal tells of the run as it finally went, and ask for nothing."""
        self.stop_request, self.fault, self.monitor = "", None, Monitor(has_scores=True)
        for event in read_events(self.run.journal):
            metrics = event_metrics(event)
            if metrics is not None:
                self.monitor.observe(event.images_seen, metrics)

    def observe(self, event: Event, learning_rate_factor: float) -> list[Fault]:
        """Return the faults that begin with an event; ask for what follows from them."""
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
        return faults

    def _can_roll_back(self, images_seen: int, learning_rate_factor: float) -> bool:
        best = best_checkpoint(self.run.checkpoints)
        return (
            self.config.on_failure == "rollback"
            and best is not None
            and int(best.name) < images_seen
            and learning_rate_factor > MIN_LEARNING_RATE_FACTOR
        )
