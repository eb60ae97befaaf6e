"""From faults to deeds: what a run asks for when its monitor finds something, as `health` and `patience` say.

Knows the run's journal and checkpoints, not how to stop or go back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cardigan.config import Config
from cardigan.run.checkpoint import best_checkpoint
from cardigan.run.directory import RunDirectory
from cardigan.run.journal import Event, read_events
from cardigan.training.faults import Fault
from cardigan.training.health import Monitor

SMALLEST_FACTOR = 1 / 8
"""After three rollbacks the learning rates are not halved again: the run stops."""


def reading(event: Event) -> Mapping[str, float] | None:
    """Return the numbers that an event tells the monitor, None if it tells none."""
    if event.kind not in {"progress", "checkpoint"}:
        return None
    numbers = {name: float(value) for name, value in event.values.items() if isinstance(value, int | float)}
    return numbers or None


@dataclass
class Watch:
    """The monitor of a live run, and what it leads to."""

    run: RunDirectory
    config: Config
    asked: str = ""
    """What should end the training here: patience, health or rollback; "" for nothing."""
    reason: Fault | None = None
    """The fault behind it."""
    monitor: Monitor = field(init=False)

    def __post_init__(self) -> None:
        self.monitor = Monitor(judged=True)

    def begin_anew(self) -> None:
        """Know what the journal tells of the run as it finally went, and ask for nothing."""
        self.asked, self.reason, self.monitor = "", None, Monitor(judged=True)
        for event in read_events(self.run.journal):
            numbers = reading(event)
            if numbers is not None:
                self.monitor.observe(event.images_seen, numbers)

    def after(self, event: Event, learning_rate_factor: float) -> list[Fault]:
        """Return the faults that begin with an event; ask for what follows from them."""
        numbers = reading(event)
        found = [] if numbers is None else self.monitor.observe(event.images_seen, numbers)
        self.reason = next((fault for fault in found if fault.grave), self.reason)
        if self.reason is not None and self.config.health != "warn" and not self.asked:
            self.asked = "rollback" if self._can_go_back(event.images_seen, learning_rate_factor) else "health"
        best_at, patience = self.monitor.trend.best_at, self.config.patience
        judged_again = numbers is not None and "score" in numbers
        if not self.asked and judged_again and patience is not None and best_at is not None and event.images_seen - best_at >= patience:
            self.asked = "patience"
        return found

    def _can_go_back(self, images_seen: int, learning_rate_factor: float) -> bool:
        best = best_checkpoint(self.run.checkpoints)
        return self.config.health == "rollback" and best is not None and int(best.name) < images_seen and learning_rate_factor > SMALLEST_FACTOR
