"""Automatic settings for a source of images, with one line of reason for each.

Takes the statistics of the images, the device and a throughput function. Builds nothing itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from cardigan.backbones.efficientnet import EXAMINER, VARIANTS, is_installed
from cardigan.config import Config
from cardigan.data.quality.advice import SMALL_DATASET
from cardigan.data.stats import DatasetStats
from cardigan.metrics.quick import NUM_SAMPLES as MIN_SCORED_HOLDOUT
from cardigan.nets.table import backbone_name
from cardigan.overrides import flatten, override
from cardigan.recipes import PLAIN_RECIPE, find_recipe

ADA_MAX_IMAGES = 20_000
"""Fewer images than this are augmented adaptively (ADA); fewer than `SMALL_DATASET` always (DiffAugment)."""
FEW_IMAGES, VERY_FEW_IMAGES = 100, 40
"""With at most so many images samples vary little, or are mostly copies, which is said before training."""
FEW_IMAGES_BUDGET: dict[str, Any] = {"images": 8_000, "minutes": None}
"""Of a start on few images: what `benchmarks/few_images.py` measured (docs/results.md, "Starting from a starter")."""
EPOCHS_BEFORE_AUGMENTATION, IMAGES_BEFORE_AUGMENTATION = 30, 18_000
"""With a discriminator on pretrained features, augmentation begins after so many epochs, and not before so many images.

Until then it learns faster without augmentation (docs/lab-book.md, "No augmentation for few epochs" and
"Augmentation of 300 avatars began too early").
"""
CANDIDATE_WIDTHS = {"cpu": (32, 24), "mps": (48, 32), "cuda": (64, 48, 32)}
LIGHT_WIDTHS = {"cpu": (16,), "mps": (16,), "cuda": (32, 16)}
"""Widths of the generator `light`, which doubles them up to eight times too, but gates half of its channels."""
MLP_MIN_WIDTH, MLP_MAX_WIDTH = 300, 2_400
MAX_SIDE = {"cpu": 64, "mps": 64, "cuda": 128}
MAX_ASPECT_RATIO = 4
"""Images with a larger aspect ratio are cropped to squares."""
MIN_TRAINING_IMAGES = 300_000
"""If the budget covers fewer training images than this, a narrower network gives better results."""
DEFAULT_BUDGET_MINUTES = {"cpu": 60.0, "mps": 60.0, "cuda": 120.0}
SHORT_BUDGET_MINUTES = 10.0
"""With a smaller budget than this on a CPU, the image size is halved."""
SAMPLE_INTERVAL_SECONDS, CHECKPOINT_INTERVAL_SECONDS = 60.0, 180.0
MIN_IMAGES_FOR_HOLDOUT, HOLDOUT_ONE_IN, MAX_HOLDOUT = 1_000, 20, 1_000
"""From the first number of images on, one image in the second number is held out, at most the third number.

Of shards one whole shard is held out, if there are at least `HOLDOUT_ONE_IN` of them.
"""

SETTINGS_OF_PRETRAINED_FEATURES = (
    *("batch_size", "discriminator.network", "generator_optimizer.learning_rate"),
    *("discriminator_optimizer.learning_rate", "ema.half_life_images", "ema.statistics_samples"),
    *("objective.penalty_initial_factor", "objective.penalty_decay_images"),
)
"""Settings that suit a discriminator on pretrained features, and no other."""


@dataclass(frozen=True)
class AutoChoice:
    """Settings and the reasons for them, as readable lines."""

    settings: dict[str, Any]
    reasons: list[str]


ThroughputFn = Callable[[Config], float]
"""Returns the training throughput of a config on this machine, in images per second."""


def auto_config(
    config: Config,
    explicit_settings: set[str],
    stats: DatasetStats,
    device: str,
    throughput: ThroughputFn,
    recipe_given: bool = False,
) -> tuple[Config, list[str]]:
    """Return the config with its open settings chosen for these images and this machine, and one line of reason each.

    `explicit_settings` are the dotted names that the user has set; they are never changed. `device` is cpu, cuda or
    mps. With `recipe_given` the user has named a recipe, and only what the images require is chosen.
    """
    stats = replace(stats, num_images=min(stats.num_images, config.data.max_images or stats.num_images))
    reasons = _warn_of_few_images(config, stats)
    if config.data.labels and not config.conditional:
        reasons.append("classes: found but not used; --conditional trains on them")
    if recipe_given:
        for choice in (AutoChoice({"data.channels": stats.channels}, []), _choose_holdout(config, stats, device)):
            config, choice_reasons = _apply_choice(config, choice, explicit_settings)
            reasons += choice_reasons
        return config, reasons
    if config.start_from and stats.num_images <= FEW_IMAGES and not {"minutes", "images"} & explicit_settings:
        config, explicit_settings = override(config, FEW_IMAGES_BUDGET), {*explicit_settings, "images"}
        reasons.append(
            f"time: {FEW_IMAGES_BUDGET['images']:,} images, after which a start on so few was measured "
            "(--images, --minutes); --resume continues"
        )
    for choose in (
        _choose_size,
        partial(_choose_discriminator, explicit_settings),
        *([] if _sets_augmentation(explicit_settings) else [_choose_augmentation]),
        _choose_holdout,
    ):
        choice = choose(config, stats, device)
        config, choice_reasons = _apply_choice(config, choice, explicit_settings)
        reasons += choice_reasons
    config, choice_reasons = _apply_choice(
        config, _choose_width(config, explicit_settings, device, throughput), explicit_settings
    )
    reasons += choice_reasons
    if config.discriminator.network == "projected" and not _sets_augmentation(explicit_settings):
        choice = _choose_augmentation_for_features(config, explicit_settings, stats, device, throughput)
        config, choice_reasons = _apply_choice(config, choice, explicit_settings)
        reasons += choice_reasons
    config, choice_reasons = _apply_choice(
        config, _choose_minutes(config, explicit_settings, device), explicit_settings
    )
    reasons += choice_reasons
    config, choice_reasons = _apply_choice(config, _choose_intervals(config, throughput(config)), explicit_settings)
    return config, [*reasons, *choice_reasons]


def _warn_of_few_images(config: Config, stats: DatasetStats) -> list[str]:
    if stats.num_images > FEW_IMAGES:
        return []
    if stats.num_images <= VERY_FEW_IMAGES:
        expected = "most samples will be near copies of the images (measured with 20: two thirds of them)"
    else:
        expected = (
            "expect samples that resemble each other, and many near copies (measured with 100: two fifths of them)"
        )
    if not config.start_from:
        advice = "; start from a trained model with --from"
    elif not config.objective.correspondence:
        advice = "; --objective.correspondence 1000 keeps more of the model's variety"
    else:
        advice = ""
    return [f"few images: with {stats.num_images:,}, {expected}{advice} (docs/guides/start-from.md)"]


def auto_augmentation(config: Config, explicit_settings: set[str]) -> tuple[Config, list[str]]:
    """Return the config of a built-in source, with augmentation if `data.max_images` limits it to few images."""
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
    if stats.same_aspect_ratio and abs(stats.height - stats.width) > 2 and aspect_ratio <= MAX_ASPECT_RATIO:
        height, width = (max(8, round(side * size / short_side / 8) * 8) for size in (stats.height, stats.width))
    color_description = {1: "grayscale", 3: "in color", 4: "in color with transparency"}[stats.channels]
    return AutoChoice(
        {"data.height": height, "data.width": width, "data.channels": stats.channels, "data.resize": "crop"},
        [
            f"images: {stats.num_images:,}, {color_description}, mostly {stats.height}x{stats.width}; "
            f"training size {height}x{width} (--size, --data.channels)"
        ],
    )


def _choose_discriminator(explicit_settings: set[str], config: Config, _: DatasetStats, __: str) -> AutoChoice:
    """Choose a discriminator without pretrained features where they are not installed.

    Where the user has named another network, choose the settings that suit it.
    """
    if find_recipe(config.recipe).config().discriminator.network != "projected":
        return AutoChoice({}, [])
    if config.discriminator.network != "projected":
        return AutoChoice(_settings_without_pretrained_features(config, explicit_settings), [])
    backbone = backbone_name(config.discriminator)
    is_missing = backbone in VARIANTS and not is_installed(backbone)
    asks_for_features = any(
        name.startswith(("discriminator.network", "discriminator.options")) for name in explicit_settings
    )
    if is_missing and not asks_for_features:
        return AutoChoice(
            _settings_without_pretrained_features(config, explicit_settings),
            [
                f"discriminator: without pretrained features, because {backbone} is not installed: "
                "pip install 'cardigan[features]'"
            ],
        )
    scorer = EXAMINER if is_installed(EXAMINER) else "a distance of thumbnails"
    return AutoChoice({}, [f"discriminator: on features of the pretrained {backbone}; {scorer} scores the images"])


def _settings_without_pretrained_features(config: Config, explicit_settings: set[str]) -> dict[str, Any]:
    """Return what a recipe with pretrained features takes from the one without them."""
    plain = flatten(find_recipe(PLAIN_RECIPE).config())
    penalties = {f"objective.penalties.{name}": weight for name, weight in plain["objective.penalties"].items()}
    given = config.discriminator.options.items()
    options = {name: value for name, value in given if f"discriminator.options.{name}" in explicit_settings}
    return {
        **{name: plain[name] for name in SETTINGS_OF_PRETRAINED_FEATURES},
        **penalties,
        "discriminator.options": options,
    }


def _choose_augmentation(config: Config, stats: DatasetStats, __: str) -> AutoChoice:
    if config.discriminator.network == "projected":
        return AutoChoice({}, [])  # chosen when the number of images that the budget covers is known
    if stats.num_images < SMALL_DATASET:
        return AutoChoice(
            _diff_augment(stats),
            [f"augmentation: DiffAugment, for fewer than {SMALL_DATASET:,} images (--augment.operations)"],
        )
    if stats.num_images < ADA_MAX_IMAGES:
        settings = {
            "augment.operations": "integer-translation,isotropic-scale,rotate,anisotropic-scale,fractional-translation",
            "augment.target": 0.6,
            "augment.ramp_images": 100_000,
        }
        return AutoChoice(
            settings,
            [f"augmentation: adaptive (ADA), for fewer than {ADA_MAX_IMAGES:,} images (--augment.target)"],
        )
    return AutoChoice({}, [f"augmentation: none, for at least {ADA_MAX_IMAGES:,} images (--augment.operations)"])


def _choose_augmentation_for_features(
    config: Config, explicit_settings: set[str], stats: DatasetStats, device: str, throughput: ThroughputFn
) -> AutoChoice:
    """Choose DiffAugment, as published for pretrained features, once D has seen each image often."""
    start = max(EPOCHS_BEFORE_AUGMENTATION * stats.num_images, IMAGES_BEFORE_AUGMENTATION)
    planned = _planned_images(config, explicit_settings, device, throughput)
    if planned < start:
        return AutoChoice(
            {}, [f"augmentation: none, because it would begin after {start:,} images (--augment.operations)"]
        )
    slowdown = ""
    if not _budget_in_images(config, explicit_settings):
        minutes = _budget_minutes(config, device)
        later = throughput(override(config, _diff_augment(stats)))
        total = start + later * (minutes * 60 - start / throughput(config))
        slowdown = f"; steps are slower from then on, so {minutes:g} minutes cover up to {total:,.0f} images"
    return AutoChoice(
        {**_diff_augment(stats), "augment.start_images": start},
        [
            f"augmentation: DiffAugment from {start:,} images on, when each image was seen "
            f"{round(start / stats.num_images):,} times{slowdown} (--augment.operations)"
        ],
    )


def _diff_augment(stats: DatasetStats) -> dict[str, Any]:
    operations = "translation,cutout" if stats.channels == 1 else "color,translation,cutout"
    return {"augment.operations": operations, "augment.probability": 1.0}


def _choose_holdout(_: Config, stats: DatasetStats, __: str) -> AutoChoice:
    if 0 < stats.num_shards < HOLDOUT_ONE_IN:
        return AutoChoice(
            {}, [f"holdout: none, it would take a whole one of {stats.num_shards} shards (--data.holdout)"]
        )
    if stats.num_images < MIN_IMAGES_FOR_HOLDOUT:
        return AutoChoice(
            {},
            ["holdout: none, there are too few images; the score uses the training images (--data.holdout)"],
        )
    number = min(MAX_HOLDOUT, stats.num_images // HOLDOUT_ONE_IN)
    return AutoChoice(
        {"data.holdout": number},
        [f"holdout: {number:,} images, {_use_of_holdout(number)} (--data.holdout)"],
    )


def _use_of_holdout(number: int) -> str:
    if number < MIN_SCORED_HOLDOUT:
        return "to detect overfitting and for `cardigan evaluate`; scores during training use the training images"
    return "to compute the score and to detect overfitting"


def _choose_width(config: Config, explicit_settings: set[str], device: str, throughput: ThroughputFn) -> AutoChoice:
    free = {
        network: _candidate_widths(config, network, device)
        for network in ("generator", "discriminator")
        if f"{network}.width" not in explicit_settings
    }
    budget = _budget_in_images(config, explicit_settings)
    candidate, images_per_second = config, 0.0
    for index in range(max(map(len, free.values()), default=1)):
        candidate = override(
            config, {f"{network}.width": widths[min(index, len(widths) - 1)] for network, widths in free.items()}
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
            f"networks: width {widths_text}, measured {images_per_second:,.0f} images/s, {estimate} "
            "(--generator.width, --discriminator.width)"
        ],
    )


def _candidate_widths(config: Config, network: str, device: str) -> tuple[int, ...]:
    """Return the widths to try, the widest first.

    For an MLP they follow the number of values of an image: 1,200 for 28x28 (arXiv:1406.2661).
    """
    if getattr(config, network).network == "projected":
        return (getattr(config, network).width,)
    if getattr(config, network).network == "light":
        return LIGHT_WIDTHS[device]
    if getattr(config, network).network != "mlp":
        return CANDIDATE_WIDTHS[device]
    values = config.data.height * config.data.width * config.data.channels
    widest = min(MLP_MAX_WIDTH, max(MLP_MIN_WIDTH, round(1.5 * values, -2)))
    return (int(widest), int(widest) // 2)


def _time_estimate(images: int | None, minutes: float, images_per_second: float) -> str:
    """Return how long `images` take at this speed, or else how many images `minutes` cover."""
    if images is not None:
        return f"so {images:,} images take about {max(1, round(images / images_per_second / 60)):,} minutes"
    return f"so {minutes:g} minutes cover up to {images_per_second * minutes * 60:,.0f} images"


def _planned_images(config: Config, explicit_settings: set[str], device: str, throughput: ThroughputFn) -> float:
    """Return how many images the budget covers."""
    images = _budget_in_images(config, explicit_settings)
    return float(images) if images else throughput(config) * _budget_minutes(config, device) * 60


def _budget_in_images(config: Config, explicit_settings: set[str]) -> int | None:
    """Return the number of images that the user asked for, or None if the budget is a time."""
    return config.images if "images" in explicit_settings and config.minutes is None else None


def _budget_minutes(config: Config, device: str) -> float:
    return config.minutes or DEFAULT_BUDGET_MINUTES[device]


def _choose_minutes(config: Config, explicit_settings: set[str], device: str) -> AutoChoice:
    if {"minutes", "images"} & explicit_settings:
        return AutoChoice({}, [])
    minutes = DEFAULT_BUDGET_MINUTES[device]
    return AutoChoice(
        {"minutes": minutes, "images": None},
        [f"time: {minutes:g} minutes, the default (--minutes, --images); Ctrl-C saves the run, --resume continues it"],
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
