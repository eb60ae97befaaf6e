"""What each fault looks like in the numbers of one reading, beside what the run remembers of its own.

Every threshold is here, with its reason; nothing else decides.
"""

import statistics
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Values = Mapping[str, float]

SUSTAINED = 3
"""A sign has to be seen in this many readings in a row that could show it."""
NUM_FIRST, NUM_RECENT = 10, 20
UNDER_WAY, AN_EPOCH = 20_000, 60_000
"""Images after which the start is over, when healthy runs look bad too; and after which even a slow one must have begun."""
LOSSES = ("discriminator_loss", "generator_loss")
GRADIENTS = ("discriminator_gradient", "generator_gradient")


@dataclass
class Memory:
    """What a run was like at its start, and lately: losses jump about, so medians are compared."""

    first: dict[str, list[float]] = field(default_factory=dict)
    recent: dict[str, deque[float]] = field(default_factory=dict)
    widest: float = 0.0
    """The largest diversity there was."""
    position: int = 0

    def take(self, position: int, values: Values) -> None:
        self.position, self.widest = position, max(self.widest, values.get("diversity", 0.0))
        for name in LOSSES:
            if name in values:
                if len(self.first.setdefault(name, [])) < NUM_FIRST:
                    self.first[name].append(values[name])
                self.recent.setdefault(name, deque(maxlen=NUM_RECENT)).append(values[name])

    def then_and_now(self, name: str) -> tuple[float, float] | None:
        """Return a median of the first readings and one of the latest; None while there are too few to compare."""
        if len(self.recent.get(name, ())) < NUM_RECENT:
            return None
        return statistics.median(self.first[name]), statistics.median(self.recent[name])


@dataclass(frozen=True)
class Sign:
    """One way to notice a fault."""

    name: str
    needs: frozenset[str]
    seen: Callable[[Values, Memory], dict[str, float] | None]
    """Returns the numbers that show the fault, or None."""
    grave: bool = False
    only_losses: bool = False
    """Whether it is a guess from losses alone, which a score overrules."""


def one_picture(values: Values, memory: Memory) -> dict[str, float] | None:
    """Pictures differ by less than a tenth of what real ones do, so that nobody could tell them apart: they did before, half as much
    as real ones (less is the tumble of the first steps), or should by now."""
    begun = memory.widest > 0.5 or memory.position >= AN_EPOCH
    return {"diversity": values["diversity"], "widest": memory.widest} if begun and values["diversity"] < 0.1 else None


def dead(values: Values, _: Memory) -> dict[str, float] | None:
    """Pictures are all alike and G's gradient is under a thousandth of D's: it cannot ever change that (dead ReLUs, saturated outputs)."""
    shown = {name: values[name] for name in ("diversity", *GRADIENTS)}
    return shown if shown["diversity"] < 0.1 and shown["generator_gradient"] < 1e-3 * shown["discriminator_gradient"] else None


def few_pictures(values: Values, memory: Memory) -> dict[str, float] | None:
    """Pictures that differed like real ones differ by less than half of that, or a quarter of them has a twin."""
    shown = {"diversity": values["diversity"], "repeated": values["repeated"], "widest": memory.widest}
    return shown if memory.widest > 0.8 and (shown["diversity"] < 0.5 or shown["repeated"] > 0.25) else None


def classes_missing(values: Values, memory: Memory) -> dict[str, float] | None:
    """The histogram of classes is as far from the data's as if three classes of ten were never drawn: ln(10/7) = 0.36 nats."""
    return {"class_divergence": values["class_divergence"]} if memory.position >= UNDER_WAY and values["class_divergence"] > 0.36 else None


def real_is_told(values: Values, memory: Memory) -> dict[str, float] | None:
    """D is right about 99 pictures of 100 of either kind: its loss, and with it what G can learn, is next to nothing. At the start it may be."""
    shown = {name: values[name] for name in ("d_real", "d_fake")}
    return shown if memory.position >= UNDER_WAY and shown["d_real"] > 0.99 and shown["d_fake"] < 0.01 else None


def fake_is_believed(values: Values, _: Memory) -> dict[str, float] | None:
    """D prefers generated pictures to real ones, by more than chance would have it, even before G answers, and is not torn apart itself."""
    shown = {name: values[name] for name in ("d_real", "d_fake", "discriminator_loss")}
    return shown if shown["d_fake"] - shown["d_real"] > 0.2 and shown["discriminator_loss"] < 10 else None


def worse_than_guessing(values: Values, memory: Memory) -> dict[str, float] | None:
    """D pays a hundred times what guessing would cost it, about 1; or ten times, once the game is under way: its steps are too long."""
    loss = values["discriminator_loss"]
    return {"discriminator_loss": loss} if loss > (10 if memory.position >= UNDER_WAY else 100) else None


def out_of_proportion(_: Values, memory: Memory) -> dict[str, float] | None:
    """A loss is lastingly a thousand times what it was at the start (or than 1, if that is larger)."""
    for name in LOSSES:
        compared = memory.then_and_now(name)
        if compared is not None and abs(compared[1]) > 1000 * max(1.0, abs(compared[0])):
            return {name: compared[1], f"{name}_at_start": compared[0]}
    return None


def known_by_heart(values: Values, _: Memory) -> dict[str, float] | None:
    """Held-out real pictures look more like generated ones to D than like the real ones it was trained on (arXiv:2006.06676, eq. 1)."""
    return {"held_out_gap": values["held_out_gap"]} if values["held_out_gap"] > 0.5 else None


def copied(values: Values, _: Memory) -> dict[str, float] | None:
    """Generated pictures lie less than half as far from their nearest training picture as new real ones do."""
    return {"nearness": values["nearness"]} if values["nearness"] < 0.5 else None


def loss_vanished(values: Values, memory: Memory) -> dict[str, float] | None:
    """D's loss is lastingly under a tenth of what it began with, while G's is higher. Where D's beliefs are known, they say it better."""
    discriminator, generator = (memory.then_and_now(name) for name in LOSSES)
    if "d_real" in values or discriminator is None or generator is None:
        return None
    vanished = discriminator[0] > 0 and discriminator[1] < 0.1 * discriminator[0] and generator[1] > generator[0]
    return {"discriminator_loss": discriminator[1], "discriminator_loss_at_start": discriminator[0]} if vanished else None


DIFFERENCES, OPINIONS = frozenset({"diversity"}), frozenset({"d_real", "d_fake", "discriminator_loss"})
SIGNS = (
    Sign("collapse", DIFFERENCES, one_picture, grave=True),
    Sign("collapse", DIFFERENCES | set(GRADIENTS), dead, grave=True),
    Sign("partial collapse", DIFFERENCES | {"repeated"}, few_pictures),
    Sign("partial collapse", frozenset({"class_divergence"}), classes_missing),
    Sign("discriminator won", OPINIONS, real_is_told, grave=True),
    Sign("generator won", OPINIONS, fake_is_believed, grave=True),
    Sign("divergence", OPINIONS, worse_than_guessing, grave=True),
    Sign("divergence", frozenset(LOSSES), out_of_proportion, grave=True, only_losses=True),
    Sign("overfitting", frozenset({"held_out_gap"}), known_by_heart),
    Sign("memorising", frozenset({"nearness"}), copied),
    Sign("discriminator won", frozenset(LOSSES), loss_vanished, grave=True, only_losses=True),
)
