"""What can be said about a run's health: that it is too early, that nothing was found, or a fault.

Knows events and image counts. The thresholds are those of the rules.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from cardigan.health.rules import EPOCH_IMAGES, MIN_DIVERSITY, START_IMAGES
from cardigan.health.score_trend import MIN_EVALUATIONS
from cardigan.run.journal import Event, rewind

TOO_EARLY, NOTHING_FOUND, WARNING, FATAL = "too early", "nothing found", "warning", "fatal"
OLD_FRACTION = 0.1
"""A number is old if it was taken before the last tenth of the run."""


@dataclass(frozen=True)
class HealthStatus:
    """A state, and one sentence about it for the user."""

    state: str
    """One of `TOO_EARLY`, `NOTHING_FOUND`, `WARNING` (a fault) and `FATAL` (a fatal fault)."""
    sentence: str
    known_at: int | None = None
    """If it is too early: the images seen from which on something can be said. None if that is not known either."""


@dataclass(frozen=True)
class FoundFault:
    """A fault in a run's journal."""

    images_seen: int
    name: str
    fatal: bool


def is_old(images_seen: int, run_images_seen: int) -> bool:
    """Return whether a number that was taken after `images_seen` images is out of date in a run of that length."""
    return images_seen < (1 - OLD_FRACTION) * run_images_seen


def health_status(
    images_seen: int, max_diversity: float | None, num_scores: int, faults: Sequence[FoundFault]
) -> HealthStatus:
    """Return what can be said after this many images. `max_diversity` is None if it was never measured."""
    if faults:
        last = next((fault for fault in reversed(faults) if fault.fatal), faults[-1])
        return HealthStatus(
            FATAL if last.fatal else WARNING, f"Fault: {last.name}, found at {last.images_seen:,} images."
        )
    has_varied = max_diversity is not None and max_diversity > MIN_DIVERSITY
    known_at = START_IMAGES if images_seen < START_IMAGES or has_varied else EPOCH_IMAGES
    if images_seen < known_at:
        return HealthStatus(
            TOO_EARLY,
            f"Too early to say after {images_seen:,} images: known from {known_at:,} images on.",
            known_at,
        )
    if max_diversity is None:
        return HealthStatus(
            TOO_EARLY, f"Too early to say after {images_seen:,} images: the diversity of the images was not measured."
        )
    no_trend = f" Its score was evaluated {num_scores} times; a trend needs {MIN_EVALUATIONS}."
    return HealthStatus(
        NOTHING_FOUND,
        f"No fault was found in {images_seen:,} images.{no_trend if num_scores < MIN_EVALUATIONS else ''}",
    )


@dataclass
class HealthRecord:
    """What `health_status` needs to know of a run, collected from its events."""

    images_seen: int = 0
    max_diversity: float | None = None
    num_scores: int = 0
    faults: list[FoundFault] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Take the next event. A rollback or a resume undoes the faults after its images."""
        values = event.values
        self.images_seen = event.images_seen
        diversity = values.get("diversity")
        if isinstance(diversity, int | float):
            self.max_diversity = max(float(diversity), self.max_diversity or 0.0)
        if event.kind == "checkpoint" and "score" in values:
            self.num_scores += 1
        elif event.kind == "fault":
            self.faults.append(FoundFault(event.images_seen, str(values.get("name")), values.get("fatal") is True))
        self.faults = rewind(self.faults, event, attrgetter("images_seen"))

    @property
    def status(self) -> HealthStatus:
        return health_status(self.images_seen, self.max_diversity, self.num_scores, self.faults)


def health_of_run(events: Iterable[Event]) -> HealthStatus:
    """Return what a run's journal says about its health."""
    record = HealthRecord()
    for event in events:
        record.add(event)
    return record.status
