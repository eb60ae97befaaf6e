"""The rules that detect each fault in the metrics of one reading and the run's history.

All thresholds and their reasons are here.
"""

import statistics
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

NamedNumbers = Mapping[str, float]

MIN_CONSECUTIVE = 3
"""A rule has to fire in this many consecutive readings that contain its required metrics."""
NUM_INITIAL, NUM_RECENT = 10, 20
START_IMAGES, EPOCH_IMAGES = 20_000, 60_000
"""Images after which the start is over, in which healthy runs look bad too, and after which a slow run must improve."""
MIN_DIVERSITY = 0.5
"""Lower diversities are noise of the first steps, until a run has once exceeded this."""
LOSS_NAMES = ("discriminator_loss", "generator_loss")
GRADIENT_NORMS = ("discriminator_gradient_norm", "generator_gradient_norm")


@dataclass
class History:
    """The losses of a run at its start and recently. Losses are noisy, so medians are compared."""

    initial: dict[str, list[float]] = field(default_factory=dict)
    recent: dict[str, deque[float]] = field(default_factory=dict)
    max_diversity: float = 0.0
    """The largest diversity so far."""
    step: int = 0

    def add(self, step: int, values: NamedNumbers) -> None:
        self.step, self.max_diversity = step, max(self.max_diversity, values.get("diversity", 0.0))
        for name in LOSS_NAMES:
            if name in values:
                if len(self.initial.setdefault(name, [])) < NUM_INITIAL:
                    self.initial[name].append(values[name])
                self.recent.setdefault(name, deque(maxlen=NUM_RECENT)).append(values[name])

    def initial_and_recent_medians(self, name: str) -> tuple[float, float] | None:
        """Return the median of the first and of the latest readings, or None while there are too few readings."""
        if len(self.recent.get(name, ())) < NUM_RECENT:
            return None
        return statistics.median(self.initial[name]), statistics.median(self.recent[name])


@dataclass(frozen=True)
class Rule:
    """A rule that detects a fault."""

    name: str
    required: frozenset[str]
    check: Callable[[NamedNumbers, History], dict[str, float] | None]
    """Returns the numbers that show the fault, or None."""
    fatal: bool = False
    loss_only: bool = False
    """Whether the rule uses losses alone. It is then not fatal in a run with scores."""


def mode_collapse(values: NamedNumbers, history: History) -> dict[str, float] | None:
    """Generated images differ less than a tenth as much as real ones, so they look the same.

    The rule applies once diversity has exceeded MIN_DIVERSITY, or after EPOCH_IMAGES.
    """
    past_start = history.max_diversity > MIN_DIVERSITY or history.step >= EPOCH_IMAGES
    return (
        {"diversity": values["diversity"], "max_diversity": history.max_diversity}
        if past_start and values["diversity"] < 0.1
        else None
    )


def dead_generator(values: NamedNumbers, _: History) -> dict[str, float] | None:
    """Generated images are all alike and G's gradient norm is below a thousandth of D's.

    G cannot recover (dead ReLUs, saturated outputs).
    """
    evidence = {name: values[name] for name in ("diversity", *GRADIENT_NORMS)}
    return (
        evidence
        if evidence["diversity"] < 0.1
        and evidence["generator_gradient_norm"] < 1e-3 * evidence["discriminator_gradient_norm"]
        else None
    )


def partial_mode_collapse(values: NamedNumbers, history: History) -> dict[str, float] | None:
    """After a diversity above 0.8, diversity falls below 0.5, or more than a quarter of the images have a duplicate.

    Duplicates count after EPOCH_IMAGES too: a run that was never diverse must not look better than one that was.
    """
    evidence = {
        "diversity": values["diversity"],
        "duplicate_rate": values["duplicate_rate"],
        "max_diversity": history.max_diversity,
    }
    was_diverse, has_duplicates = history.max_diversity > 0.8, evidence["duplicate_rate"] > 0.25
    is_fault = (was_diverse and evidence["diversity"] < 0.5) or (
        has_duplicates and (was_diverse or history.step >= EPOCH_IMAGES)
    )
    return evidence if is_fault else None


def missing_classes(values: NamedNumbers, history: History) -> dict[str, float] | None:
    """The class histogram is as far from the data's as if 3 of 10 classes were missing: KL = ln(10/7) = 0.36 nats."""
    return {"class_kl": values["class_kl"]} if history.step >= START_IMAGES and values["class_kl"] > 0.36 else None


def discriminator_too_strong(values: NamedNumbers, history: History) -> dict[str, float] | None:
    """D is right about 99 % of real and of generated images, so its loss and G's gradient are almost 0.

    This is normal at the start.
    """
    evidence = {name: values[name] for name in ("d_real", "d_fake")}
    return (
        evidence if history.step >= START_IMAGES and evidence["d_real"] > 0.99 and evidence["d_fake"] < 0.01 else None
    )


def discriminator_too_weak(values: NamedNumbers, _: History) -> dict[str, float] | None:
    """D rates generated images as more real than real ones before G's update, by more than noise, without diverging."""
    evidence = {name: values[name] for name in ("d_real", "d_fake", "discriminator_loss")}
    return evidence if evidence["d_fake"] - evidence["d_real"] > 0.2 and evidence["discriminator_loss"] < 10 else None


def discriminator_diverged(values: NamedNumbers, history: History) -> dict[str, float] | None:
    """D's loss is 100 times that of guessing (about 1), or 10 times after the start: its updates are too large."""
    loss = values["discriminator_loss"]
    return {"discriminator_loss": loss} if loss > (10 if history.step >= START_IMAGES else 100) else None


def loss_diverged(_: NamedNumbers, history: History) -> dict[str, float] | None:
    """The median of a loss exceeds 1000 times its median at the start (or 1000, if that is larger)."""
    for name in LOSS_NAMES:
        medians = history.initial_and_recent_medians(name)
        if medians is not None and abs(medians[1]) > 1000 * max(1.0, abs(medians[0])):
            return {name: medians[1], f"initial_{name}": medians[0]}
    return None


def discriminator_overfitting(values: NamedNumbers, _: History) -> dict[str, float] | None:
    """D's logits on holdout images are nearer to those on generated images than to those on training images.

    Compare arXiv:2006.06676, eq. 1.
    """
    return {"holdout_gap": values["holdout_gap"]} if values["holdout_gap"] > 0.5 else None


def memorization(values: NamedNumbers, _: History) -> dict[str, float] | None:
    """Generated images are less than half as far from their nearest training image as holdout images are."""
    return (
        {"nearest_distance_ratio": values["nearest_distance_ratio"]} if values["nearest_distance_ratio"] < 0.5 else None
    )


def discriminator_loss_vanished(values: NamedNumbers, history: History) -> dict[str, float] | None:
    """The median of D's loss is below a tenth of its start, and G's is higher.

    Not used if D's mean probabilities are known, which show this better.
    """
    discriminator_medians, generator_medians = (history.initial_and_recent_medians(name) for name in LOSS_NAMES)
    if "d_real" in values or discriminator_medians is None or generator_medians is None:
        return None
    is_vanished = (
        discriminator_medians[0] > 0
        and discriminator_medians[1] < 0.1 * discriminator_medians[0]
        and generator_medians[1] > generator_medians[0]
    )
    return (
        {"discriminator_loss": discriminator_medians[1], "initial_discriminator_loss": discriminator_medians[0]}
        if is_vanished
        else None
    )


DIVERSITY, DISCRIMINATOR_METRICS = frozenset({"diversity"}), frozenset({"d_real", "d_fake", "discriminator_loss"})
RULES = (
    Rule("mode collapse", DIVERSITY, mode_collapse, fatal=True),
    Rule("mode collapse", DIVERSITY | set(GRADIENT_NORMS), dead_generator, fatal=True),
    Rule("partial mode collapse", DIVERSITY | {"duplicate_rate"}, partial_mode_collapse),
    Rule("partial mode collapse", frozenset({"class_kl"}), missing_classes),
    Rule("discriminator too strong", DISCRIMINATOR_METRICS, discriminator_too_strong, fatal=True),
    Rule("discriminator too weak", DISCRIMINATOR_METRICS, discriminator_too_weak, fatal=True),
    Rule("divergence", DISCRIMINATOR_METRICS, discriminator_diverged, fatal=True),
    Rule("divergence", frozenset(LOSS_NAMES), loss_diverged, fatal=True, loss_only=True),
    Rule("discriminator overfitting", frozenset({"holdout_gap"}), discriminator_overfitting),
    Rule("memorization", frozenset({"nearest_distance_ratio"}), memorization),
    Rule("discriminator too strong", frozenset(LOSS_NAMES), discriminator_loss_vanished, fatal=True, loss_only=True),
)
