"""Samples of every recipe: GPU and CPU differ by at most one gray level, and sampling is repeatable."""

import numpy as np

import cardigan
from cardigan.models.snapshot import Snapshot, write_snapshot
from cardigan.recipes import RECIPES
from gpu_check.part import Result, Settings
from gpu_check.small_training import SmallTraining
from variations import SMALL, reduced

STEPS = 8
IMAGES = 96
MAX_LEVELS = 1
TINY_RECIPES = ("mnist", "gan2014", "stacked-mnist", "r3gan")


def run(settings: Settings, result: Result) -> None:
    largest: dict[str, int] = {}
    names = TINY_RECIPES if settings.tiny else tuple(RECIPES)
    if settings.tiny:
        result.skip(f"{len(RECIPES) - len(names)} of {len(RECIPES)} recipes", "a tiny run samples from a few")
    for name in names:
        model = trained_model(name, settings)
        on_cpu = model.sample(IMAGES, seed=1)
        result.check(on_cpu.std() > 0, f"{name}: all pixels are equal")
        model.to(settings.device)
        ours, again = model.sample(IMAGES, seed=1), model.sample(IMAGES, seed=1)
        result.check(np.array_equal(ours, again), f"{name}: the same seed gives other images the second time")
        result.check(
            np.array_equal(model.sample(5, seed=1), ours[:5]), f"{name}: fewer images are not the first of many"
        )
        if settings.on_gpu:
            largest[name] = int(np.abs(ours.astype(int) - on_cpu.astype(int)).max())
            result.check(largest[name] <= MAX_LEVELS, f"{name}: GPU and CPU differ by {largest[name]} gray levels")
    result.add(images=IMAGES, recipes=len(names))
    if settings.on_gpu:
        result.add(largest_difference_in_gray_levels=largest)
    else:
        result.skip("GPU against CPU", "no GPU")


def trained_model(recipe: str, settings: Settings) -> cardigan.Model:
    """Return a generator of its recipe's size after a few steps, read from a file."""
    small = (
        {**SMALL, "generator.width": 4}
        if settings.tiny
        else {"batch_size": 32, "data.max_images": SMALL["data.max_images"]}
    )
    config = reduced(RECIPES[recipe].config(), {**small, "device": settings.device})
    training = SmallTraining(config, recorded=False)
    training.advance(2 if settings.tiny else STEPS)
    path = settings.folder / f"{recipe}.safetensors"
    write_snapshot(path, Snapshot(training.state.ema_generator, config, training.spec, training.state.images_seen))
    return cardigan.load(path)
