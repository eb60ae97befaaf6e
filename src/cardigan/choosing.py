"""What Cardigan chooses where the user gave a source and little else, and why, in a line each.

Knows what pictures and machines are like, and how long a step takes if it is told; builds nothing itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cardigan.config import Config, override
from cardigan.data.checking.advice import FEW
from cardigan.data.survey import Survey

MANY = 20_000
"""Below this, changed copies of the pictures are shown as often as D's overfitting asks (ADA); below `FEW` all the time (DiffAugment)."""
WIDTHS = {"cpu": (32, 24), "mps": (48, 32), "cuda": (64, 48, 32)}
MLP_NARROWEST, MLP_WIDEST = 300, 2_400
SIDES = {"cpu": 64, "mps": 64, "cuda": 128}
MOST_OBLONG = 4
"""Pictures longer than so many times their width are cut to squares."""
ENOUGH_IMAGES = 300_000
"""Fewer images than this leave any generator unfinished: a narrower network is better then."""
USUAL_MINUTES = {"cpu": 60.0, "mps": 60.0, "cuda": 120.0}
HURRY_MINUTES = 10.0
"""With less time on a CPU than this, pictures are half as large."""
SHEET_SECONDS, CHECKPOINT_SECONDS = 60.0, 180.0
HELD_OUT_FROM, HELD_OUT_SHARE, HELD_OUT_MOST = 1_000, 20, 1_000
"""From so many pictures on one in so many is held out, and no more than that; of shards a whole one is, if there are so many."""


@dataclass(frozen=True)
class Choice:
    """Settings and the reasons for them, as lines for a person."""

    settings: dict[str, Any]
    reasons: list[str]


Pace = Callable[[Config], float]
"""Images a second that a training of these settings does on this machine."""


def chosen(config: Config, given: set[str], found: Survey, device: str, pace: Pace, by_recipe: bool = False) -> tuple[Config, list[str]]:
    """Return the config with what was not given chosen for these pictures and this machine, and the reasons, a line each.

    `given` are the dotted names the user has set; none of them is changed. `device` is cpu, cuda or mps. With `by_recipe` the user has named a
    recipe: then only what the pictures demand is chosen.
    """
    reasons = []
    found = replace(found, count=min(found.count, config.data.limit or found.count))
    if config.data.labels and not config.conditional:
        reasons.append("classes: read, but the players are not told them (--conditional)")
    if by_recipe:
        for choice in (Choice({"data.channels": found.channels}, []), _held_out(config, found, device)):
            config, said = _applied(config, choice, given)
            reasons += said
        return config, reasons
    for choose in (_frame, *([] if _augments(given) else [_augmentation]), _held_out):
        choice = choose(config, found, device)
        config, said = _applied(config, choice, given)
        reasons += said
    for choice in (_width(config, given, device, pace), _time(config, given, device)):
        config, said = _applied(config, choice, given)
        reasons += said
    config, said = _applied(config, _cadence(config, pace(config)), given)
    return config, [*reasons, *said]


def chosen_for_few(config: Config, given: set[str]) -> tuple[Config, list[str]]:
    """Return the config of a source that needs no looking at, and is trained on `data.limit` of its pictures, with augmentation for so few."""
    data = config.data
    if not data.limit or _augments(given):
        return config, []
    return _applied(config, _augmentation(config, Survey(data.limit, data.height, data.width, one_shape=True, channels=data.channels), ""), given)


def _augments(given: set[str]) -> bool:
    return any(name.startswith("augment.") for name in given)


def _applied(config: Config, choice: Choice, given: set[str]) -> tuple[Config, list[str]]:
    free = {name: value for name, value in choice.settings.items() if name not in given}
    return override(config, free), choice.reasons


def _frame(config: Config, found: Survey, device: str) -> Choice:
    target = SIDES[device]
    if device == "cpu" and config.minutes is not None and config.minutes < HURRY_MINUTES:
        target //= 2
    short = min(found.height, found.width)
    side = min(target, max(8, -(-short // 8) * 8))
    height = width = side
    oblong = max(found.height, found.width) / short
    if found.one_shape and abs(found.height - found.width) > 2 and oblong <= MOST_OBLONG:  # all of one shape: keep it
        height, width = (max(8, round(side * size / short / 8) * 8) for size in (found.height, found.width))
    colours = {1: "grey", 3: "in colour", 4: "in colour and partly transparent"}[found.channels]
    return Choice(
        {"data.height": height, "data.width": width, "data.channels": found.channels, "data.fit": "crop"},
        [f"pictures: {found.count:,}, {colours}, mostly {found.height}x{found.width}; trained on at {height}x{width} (--size, --data.channels)"],
    )


def _augmentation(_: Config, found: Survey, __: str) -> Choice:
    operations = "translation,cutout" if found.channels == 1 else "colour,translation,cutout"
    if found.count < FEW:
        settings = {"augment.operations": operations, "augment.probability": 1.0}
        return Choice(settings, [f"augmentation: DiffAugment, since there are fewer than {FEW:,} pictures (--augment.operations)"])
    if found.count < MANY:
        settings = {"augment.operations": "shift,scale,rotate,stretch,drift", "augment.target": 0.6, "augment.rise_images": 100_000}
        return Choice(settings, [f"augmentation: as much as D's overfitting asks for (ADA), under {MANY:,} pictures (--augment.target)"])
    return Choice({}, [f"augmentation: none, {MANY:,} pictures and more do without (--augment.operations)"])


def _held_out(_: Config, found: Survey, __: str) -> Choice:
    if 0 < found.shards < HELD_OUT_SHARE:
        return Choice({}, [f"held out: nothing, a whole one of {found.shards} shards would be needed (--data.held_out)"])
    if found.count < HELD_OUT_FROM:
        return Choice({}, ["held out: nothing, every picture is needed; the score compares with those trained on (--data.held_out)"])
    number = min(HELD_OUT_MOST, found.count // HELD_OUT_SHARE)
    return Choice({"data.held_out": number}, [f"held out: {number:,} pictures, to judge by and to notice overfitting (--data.held_out)"])


def _width(config: Config, given: set[str], device: str, pace: Pace) -> Choice:
    free = {player: _widths(config, player, device) for player in ("generator", "discriminator") if f"{player}.width" not in given}
    budget = config.images if "images" in given and config.minutes is None else None
    tried, speed = config, 0.0
    for narrower in range(max(map(len, free.values()), default=1)):
        tried = override(config, {f"{player}.width": options[min(narrower, len(options) - 1)] for player, options in free.items()})
        speed = pace(tried)
        if budget or speed * _minutes(config, device) * 60 >= ENOUGH_IMAGES:
            break
    widths = (tried.generator.width, tried.discriminator.width)
    both = f"{widths[0]}" if widths[0] == widths[1] else f"{widths[0]} and {widths[1]}"
    settings: dict[str, Any] = {"generator.width": widths[0], "discriminator.width": widths[1]}
    goal = _goal(budget, _minutes(config, device), speed)
    return Choice(settings, [f"networks: width {both}, measured {speed:,.0f} images/s, {goal} (--generator.width, --discriminator.width)"])


def _widths(config: Config, player: str, device: str) -> tuple[int, ...]:
    """Return what to try, the widest first. Of a network without convolutions it follows the picture's values: 1,200 for 28x28 (arXiv:1406.2661)."""
    if getattr(config, player).network != "mlp":
        return WIDTHS[device]
    values = config.data.height * config.data.width * config.data.channels
    widest = min(MLP_WIDEST, max(MLP_NARROWEST, round(1.5 * values, -2)))
    return (int(widest), int(widest) // 2)


def _goal(images: int | None, minutes: float, speed: float) -> str:
    """Say what a speed comes to, in so many images or else minutes."""
    if images is not None:
        return f"so {images:,} images take about {max(1, round(images / speed / 60)):,} minutes"
    return f"so {minutes:g} minutes show about {speed * minutes * 60:,.0f}"


def _minutes(config: Config, device: str) -> float:
    return config.minutes or USUAL_MINUTES[device]


def _time(config: Config, given: set[str], device: str) -> Choice:
    if {"minutes", "images"} & given:
        return Choice({}, [])
    minutes = USUAL_MINUTES[device]
    return Choice(
        {"minutes": minutes, "images": None},
        [f"time: {minutes:g} minutes, since none was given (--minutes, --images); Ctrl-C saves, --resume goes on"],
    )


def _cadence(config: Config, speed: float) -> Choice:
    def about(seconds: float) -> int:
        step = max(1, round(speed * seconds))
        digits = 10 ** (len(str(step)) - 1)
        return max(config.batch, step // digits * digits)

    return Choice({"sample_every": about(SHEET_SECONDS), "checkpoint_every": about(CHECKPOINT_SECONDS)}, [])
