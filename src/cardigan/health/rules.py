"""What each fault looks like in the numbers of one reading, beside what the run remembers of its own.

Every threshold is here, with its reason; nothing else decides.
"""

import statistics
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

NamedNumbers = Mapping[str, float]

MIN_CONSECUTIVE = 3
"""A sign has to be seen in this many readings in a row that could show it."""
NUM_INITIAL, NUM_RECENT = 10, 20
START_IMAGES, EPOCH_IMAGES = 20_000, 60_000
"""Images after which the start is over, when healthy runs look bad too; and after which even a slow one must have begun."""
LOSS_NAMES = ("discriminator_loss", "generator_loss")
GRADIENT_NORMS = ("discriminator_gradient_norm", "generator_gradient_norm")


@dataclass
class History:
    """What a run was like at its start, and lately: losses jump about, so medians are compared."""

    initial: dict[str, list[float]] = field(default_factory=dict)
    recent: dict[str, deque[float]] = field(default_factory=dict)
    max_diversity: float = 0.0
    """The largest diversity there was."""
    step: int = 0

    def add(self, step: int, values: NamedNumbers) -> None:
        self.step, self.max_diversity = step, max(self.max_diversity, values.get("diversity", 0.0))
        for name in LOSS_NAMES:
            if name in values:
                if len(self.initial.setdefault(name, [])) < NUM_INITIAL:
                    self.initial[name].append(values[name])
                self.recent.setdefault(name, deque(maxlen=NUM_RECENT)).append(values[name])

    def initial_and_recent_medians(self, name: str) -> tuple[float, float] | None:
        """Return a median of the first readings and one of the latest; None while there are too few to compare."""
        if len(self.recent.get(name, ())) < NUM_RECENT:
            return None
        return statistics.median(self.initial[name]), statistics.median(self.recent[name])


@dataclass(frozen=True)
class Rule:
    """One way to notice a fault."""

    name: str
    required: frozenset[str]
    check: Callable[[NamedNumbers, History], dict[str, float] | None]
    """Returns the numbers that show the fault, or None."""
    fatal: bool = False
    loss_only: bool = False
    """Whether it is a guess from losses alone, which a score overrules."""


def mode_collapse(values: NamedNumbers, history: History) -> dict[str, float] | None:
    """Pictures differ by less than a tenth of what real ones do, so that nobody could tell them apart: they did before, half as much
    as real ones (less is the tumble of the first steps), or should by now."""
    past_start = history.max_diversity > 0.5 or history.step >= EPOCH_IMAGES
    return (
        {"diversity": values["diversity"], "max_diversity": history.max_diversity}
        if past_start and values["diversity"] < 0.1
        else None
    )


def dead_generator(values: NamedNumbers, _: History) -> dict[str, float] | None:
    """Pictures are all alike and G's gradient is under a thousandth of D's: it cannot ever change that (dead ReLUs, saturated outputs)."""
    evidence = {name: values[name] for name in ("diversity", *GRADIENT_NORMS)}
    return (
        evidence
        if evidence["diversity"] < 0.1
        and evidence["generator_gradient_norm"] < 1e-3 * evidence["discriminator_gradient_norm"]
        else None
    )


def partial_mode_collapse(values: NamedNumbers, history: History) -> dict[str, float] | None:
    """Pictures that differed like real ones differ by less than half of that, or a quarter of them has a twin."""
    evidence = {
        "diversity": values["diversity"],
        "duplicate_rate": values["duplicate_rate"],
        "max_diversity": history.max_diversity,
    }
    return (
        evidence
        if history.max_diversity > 0.8 and (evidence["diversity"] < 0.5 or evidence["duplicate_rate"] > 0.25)
        else None
    )


def missing_classes(values: NamedNumbers, history: History) -> dict[str, float] | None:
    """The histogram of classes is as far from the data's as if three classes of ten were never drawn: ln(10/7) = 0.36 nats."""
    return {"class_kl": values["class_kl"]} if history.step >= START_IMAGES and values["class_kl"] > 0.36 else None


def discriminator_too_strong(values: NamedNumbers, history: History) -> dict[str, float] | None:
    """D is right about 99 pictures of 100 of either kind: its loss, and with it what G can learn, is next to nothing. At the start it may be."""
    evidence = {name: values[name] for name in ("d_real", "d_fake")}
    return (
        evidence if history.step >= START_IMAGES and evidence["d_real"] > 0.99 and evidence["d_fake"] < 0.01 else None
    )


def discriminator_too_weak(values: NamedNumbers, _: History) -> dict[str, float] | None:
    """D prefers generated pictures to real ones, by more than chance would have it, even before G answers, and is not torn apart itself."""
    evidence = {name: values[name] for name in ("d_real", "d_fake", "discriminator_loss")}
    return evidence if evidence["d_fake"] - evidence["d_real"] > 0.2 and evidence["discriminator_loss"] < 10 else None


def discriminator_diverged(values: NamedNumbers, history: History) -> dict[str, float] | None:
    """D pays a hundred times what guessing would cost it, about 1; or ten times, once the game is under way: its steps are too long."""
    loss = values["discriminator_loss"]
    return {"discriminator_loss": loss} if loss > (10 if history.step >= START_IMAGES else 100) else None


def loss_diverged(_: NamedNumbers, history: History) -> dict[str, float] | None:
    """A loss is lastingly a thousand times what it was at the start (or than 1, if that is larger)."""
    for name in LOSS_NAMES:
        medians = history.initial_and_recent_medians(name)
        if medians is not None and abs(medians[1]) > 1000 * max(1.0, abs(medians[0])):
            return {name: medians[1], f"initial_{name}": medians[0]}
    return None


def discriminator_overfitting(values: NamedNumbers, _: History) -> dict[str, float] | None:
    """Held-out real pictures look more like generated ones to D than like the real ones it was trained on (arXiv:2006.06676, eq. 1)."""
    return {"holdout_gap": values["holdout_gap"]} if values["holdout_gap"] > 0.5 else None


def memorization(values: NamedNumbers, _: History) -> dict[str, float] | None:
    """Generated pictures lie less than half as far from their nearest training picture as new real ones do."""
    return (
        {"nearest_distance_ratio": values["nearest_distance_ratio"]} if values["nearest_distance_ratio"] < 0.5 else None
    )


def discriminator_loss_vanished(values: NamedNumbers, history: History) -> dict[str, float] | None:
    """D's loss is lastingly under a tenth of what it began with, while G's is higher. Where D's beliefs are known, they say it better."""
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
