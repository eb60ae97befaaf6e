"""What Cardigan chooses where the user gave a source and little else, and why, in a line each.

Knows what pictures and machines are like, and how long a step takes if it is told; builds nothing itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cardigan.config import Config, override
from cardigan.data.quality.advice import SMALL_DATASET
from cardigan.data.stats import DatasetStats

ADA_MAX_IMAGES = 20_000
"""Below this, changed copies of the pictures are shown as often as D's overfitting asks (ADA); below `FEW` all the time (DiffAugment)."""
CANDIDATE_WIDTHS = {"cpu": (32, 24), "mps": (48, 32), "cuda": (64, 48, 32)}
MLP_MIN_WIDTH, MLP_MAX_WIDTH = 300, 2_400
MAX_SIDE = {"cpu": 64, "mps": 64, "cuda": 128}
MAX_ASPECT_RATIO = 4
"""Pictures longer than so many times their width are cut to squares."""
MIN_TRAINING_IMAGES = 300_000
"""Fewer images than this leave any generator unfinished: a narrower network is better then."""
DEFAULT_BUDGET_MINUTES = {"cpu": 60.0, "mps": 60.0, "cuda": 120.0}
SHORT_BUDGET_MINUTES = 10.0
"""With less time on a CPU than this, pictures are half as large."""
SAMPLE_INTERVAL_SECONDS, CHECKPOINT_INTERVAL_SECONDS = 60.0, 180.0
MIN_IMAGES_FOR_HOLDOUT, HOLDOUT_ONE_IN, MAX_HOLDOUT = 1_000, 20, 1_000
"""From so many pictures on one in so many is held out, and no more than that; of shards a whole one is, if there are so many."""


@dataclass(frozen=True)
class AutoChoice:
    """Settings and the reasons for them, as lines for a person."""

    settings: dict[str, Any]
    reasons: list[str]


ThroughputFn = Callable[[Config], float]
"""Images a second that a training of these settings does on this machine."""


def auto_config(
    config: Config,
    explicit_settings: set[str],
    stats: DatasetStats,
    device: str,
    throughput: ThroughputFn,
    recipe_given: bool = False,
) -> tuple[Config, list[str]]:
    """Return the config with what was not given chosen for these pictures and this machine, and the reasons, a line each.

    `explicit_settings` are the dotted names the user has set; none of them is changed. `device` is cpu, cuda or mps. With `recipe_given` the user has named a
    recipe: then only what the pictures demand is chosen.
    """
    reasons = []
    stats = replace(stats, num_images=min(stats.num_images, config.data.max_images or stats.num_images))
    if config.data.labels and not config.conditional:
        reasons.append("classes: read, but the players are not told them (--conditional)")
    if recipe_given:
        for choice in (AutoChoice({"data.channels": stats.channels}, []), _choose_holdout(config, stats, device)):
            config, choice_reasons = _apply_choice(config, choice, explicit_settings)
            reasons += choice_reasons
        return config, reasons
    for choose in (
        _choose_size,
        *([] if _sets_augmentation(explicit_settings) else [_choose_augmentation]),
        _choose_holdout,
    ):
        choice = choose(config, stats, device)
        config, choice_reasons = _apply_choice(config, choice, explicit_settings)
        reasons += choice_reasons
    for choice in (
        _choose_width(config, explicit_settings, device, throughput),
        _choose_minutes(config, explicit_settings, device),
    ):
        config, choice_reasons = _apply_choice(config, choice, explicit_settings)
        reasons += choice_reasons
    config, choice_reasons = _apply_choice(config, _choose_intervals(config, throughput(config)), explicit_settings)
    return config, [*reasons, *choice_reasons]


def auto_augmentation(config: Config, explicit_settings: set[str]) -> tuple[Config, list[str]]:
    """Return the config of a source that needs no looking at, and is trained on `data.max_images` of its pictures, with augmentation for so few."""
    data = config.data
    if not data.max_images or _sets_augmentation(explicit_settings):
        return config, []
    return _apply_choice(
        config,
        _choose_augmentation(
            config,
            DatasetStats(data.max_images, data.height, data.width, same_aspect_ratio=True, channels=data.channels),
            "",
        ),
        explicit_settings,
    )


def _sets_augmentation(explicit_settings: set[str]) -> bool:
    return any(name.startswith("augment.") for name in explicit_settings)


def _apply_choice(config: Config, choice: AutoChoice, explicit_settings: set[str]) -> tuple[Config, list[str]]:
    free = {name: value for name, value in choice.settings.items() if name not in explicit_settings}
    return override(config, free), choice.reasons


def _choose_size(config: Config, stats: DatasetStats, device: str) -> AutoChoice:
    target = MAX_SIDE[device]
    if device == "cpu" and config.minutes is not None and config.minutes < SHORT_BUDGET_MINUTES:
        target //= 2
    short_side = min(stats.height, stats.width)
    side = min(target, max(8, -(-short_side // 8) * 8))
    height = width = side
    aspect_ratio = max(stats.height, stats.width) / short_side
    if (
        stats.same_aspect_ratio and abs(stats.height - stats.width) > 2 and aspect_ratio <= MAX_ASPECT_RATIO
    ):  # all of one shape: keep it
        height, width = (max(8, round(side * size / short_side / 8) * 8) for size in (stats.height, stats.width))
    color_description = {1: "grey", 3: "in colour", 4: "in colour and partly transparent"}[stats.channels]
    return AutoChoice(
        {"data.height": height, "data.width": width, "data.channels": stats.channels, "data.resize": "crop"},
        [
            f"pictures: {stats.num_images:,}, {color_description}, mostly {stats.height}x{stats.width}; trained on at {height}x{width} (--size, --data.channels)"
        ],
    )


def _choose_augmentation(_: Config, stats: DatasetStats, __: str) -> AutoChoice:
    operations = "translation,cutout" if stats.channels == 1 else "color,translation,cutout"
    if stats.num_images < SMALL_DATASET:
        settings = {"augment.operations": operations, "augment.probability": 1.0}
        return AutoChoice(
            settings,
            [
                f"augmentation: DiffAugment, since there are fewer than {SMALL_DATASET:,} pictures (--augment.operations)"
            ],
        )
    if stats.num_images < ADA_MAX_IMAGES:
        settings = {
            "augment.operations": "integer-translation,isotropic-scale,rotate,anisotropic-scale,fractional-translation",
            "augment.target": 0.6,
            "augment.ramp_images": 100_000,
        }
        return AutoChoice(
            settings,
            [
                f"augmentation: as much as D's overfitting asks for (ADA), under {ADA_MAX_IMAGES:,} pictures (--augment.target)"
            ],
        )
    return AutoChoice(
        {}, [f"augmentation: none, {ADA_MAX_IMAGES:,} pictures and more do without (--augment.operations)"]
    )


def _choose_holdout(_: Config, stats: DatasetStats, __: str) -> AutoChoice:
    if 0 < stats.num_shards < HOLDOUT_ONE_IN:
        return AutoChoice(
            {}, [f"held out: nothing, a whole one of {stats.num_shards} shards would be needed (--data.holdout)"]
        )
    if stats.num_images < MIN_IMAGES_FOR_HOLDOUT:
        return AutoChoice(
            {},
            ["held out: nothing, every picture is needed; the score compares with those trained on (--data.holdout)"],
        )
    number = min(MAX_HOLDOUT, stats.num_images // HOLDOUT_ONE_IN)
    return AutoChoice(
        {"data.holdout": number},
        [f"held out: {number:,} pictures, to judge by and to notice overfitting (--data.holdout)"],
    )


def _choose_width(config: Config, explicit_settings: set[str], device: str, throughput: ThroughputFn) -> AutoChoice:
    free = {
        player: _candidate_widths(config, player, device)
        for player in ("generator", "discriminator")
        if f"{player}.width" not in explicit_settings
    }
    budget = config.images if "images" in explicit_settings and config.minutes is None else None
    candidate, images_per_second = config, 0.0
    for index in range(max(map(len, free.values()), default=1)):
        candidate = override(
            config, {f"{player}.width": options[min(index, len(options) - 1)] for player, options in free.items()}
        )
        images_per_second = throughput(candidate)
        if budget or images_per_second * _budget_minutes(config, device) * 60 >= MIN_TRAINING_IMAGES:
            break
    widths = (candidate.generator.width, candidate.discriminator.width)
    widths_text = f"{widths[0]}" if widths[0] == widths[1] else f"{widths[0]} and {widths[1]}"
    settings: dict[str, Any] = {"generator.width": widths[0], "discriminator.width": widths[1]}
    estimate = _time_estimate(budget, _budget_minutes(config, device), images_per_second)
    return AutoChoice(
        settings,
        [
            f"networks: width {widths_text}, measured {images_per_second:,.0f} images/s, {estimate} (--generator.width, --discriminator.width)"
        ],
    )


def _candidate_widths(config: Config, network: str, device: str) -> tuple[int, ...]:
    """Return what to try, the widest first. Of a network without convolutions it follows the picture's values: 1,200 for 28x28 (arXiv:1406.2661)."""
    if getattr(config, network).network != "mlp":
        return CANDIDATE_WIDTHS[device]
    values = config.data.height * config.data.width * config.data.channels
    widest = min(MLP_MAX_WIDTH, max(MLP_MIN_WIDTH, round(1.5 * values, -2)))
    return (int(widest), int(widest) // 2)


def _time_estimate(images: int | None, minutes: float, images_per_second: float) -> str:
    """Say what a speed comes to, in so many images or else minutes."""
    if images is not None:
        return f"so {images:,} images take about {max(1, round(images / images_per_second / 60)):,} minutes"
    return f"so {minutes:g} minutes show about {images_per_second * minutes * 60:,.0f}"


def _budget_minutes(config: Config, device: str) -> float:
    return config.minutes or DEFAULT_BUDGET_MINUTES[device]


def _choose_minutes(config: Config, explicit_settings: set[str], device: str) -> AutoChoice:
    if {"minutes", "images"} & explicit_settings:
        return AutoChoice({}, [])
    minutes = DEFAULT_BUDGET_MINUTES[device]
    return AutoChoice(
        {"minutes": minutes, "images": None},
        [f"time: {minutes:g} minutes, since none was given (--minutes, --images); Ctrl-C saves, --resume goes on"],
    )


def _choose_intervals(config: Config, images_per_second: float) -> AutoChoice:
    def rounded_images(seconds: float) -> int:
        step = max(1, round(images_per_second * seconds))
        digits = 10 ** (len(str(step)) - 1)
        return max(config.batch_size, step // digits * digits)

    return AutoChoice(
        {
            "sample_every_images": rounded_images(SAMPLE_INTERVAL_SECONDS),
            "checkpoint_every_images": rounded_images(CHECKPOINT_INTERVAL_SECONDS),
        },
        [],
    )
