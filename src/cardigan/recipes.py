"""Named experiments: each a function that returns a whole Config, with a promise that `benchmarks/quality.py` checks.

Knows settings only, no torch.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from cardigan.config import (
    AdamConfig,
    AverageConfig,
    Config,
    DataConfig,
    LatentConfig,
    NetworkConfig,
    ObjectiveConfig,
)
from cardigan.errors import unknown


def mnist() -> Config:
    """Return the best digits a laptop CPU gives in minutes: 32x32, grey, a DCGAN under the relativistic loss with R1 and R2.

    Promise: `cardigan train mnist --minutes 2` on 2 CPU cores (AVX-512 bf16) reaches a digit distance of at most 20 with all ten digits present;
    measured 13.2, from 12.0 to 16.3 over 3 seeds at two times of day, by `make bench`;
    a slower hour of the machine gives fewer images and a larger distance.
    """
    adam = AdamConfig(learning_rate=2e-3, beta1=0.0, beta2=0.99)
    return Config(
        recipe="mnist",
        images=1_000_000,
        batch=64,
        checkpoint_every=50_000,
        sample_every=20_000,
        data=DataConfig(height=32, width=32, channels=1, fit="pad"),
        latent=LatentConfig(size=64),
        generator=NetworkConfig(width=32, normalisation="batch", initialisation="dcgan"),
        discriminator=NetworkConfig(width=32),
        objective=ObjectiveConfig(loss="relativistic", r1=0.3, r2=0.3, penalty_interval=4),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        average=AverageConfig(half_life_images=20_000, ramp_up=0.1),
    )


def tutorial() -> Config:
    """Return the Apache MXNet tutorial "DCGAN on MNIST", exactly: 64x64x3, one epoch of the training digits.

    Promise: 21 minutes on 2 CPU cores (AVX-512 bf16), distance 202 with one seed, by `python benchmarks/quality.py --recipe tutorial --seeds 0`.
    """
    adam = AdamConfig(learning_rate=2e-4, beta1=0.5, beta2=0.999)
    network = NetworkConfig(width=128, normalisation="batch-shift", initialisation="dcgan")
    return Config(
        recipe="tutorial",
        images=60_000,
        batch=64,
        checkpoint_every=12_800,
        sample_every=3_200,
        data=DataConfig(height=64, width=64, channels=3, fit="stretch"),
        latent=LatentConfig(size=100),
        generator=network,
        discriminator=network,
        objective=ObjectiveConfig(loss="non-saturating"),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        average=AverageConfig(half_life_images=0, ramp_up=0.0),
    )


@dataclass(frozen=True)
class Recipe:
    """A named experiment and what may be expected of it; the figures are measured by `benchmarks/quality.py`."""

    config: Callable[[], Config]
    purpose: str
    command: str
    expected_time: str
    expected_score: str


RECIPES = {
    "mnist": Recipe(
        mnist,
        "the best digits a laptop CPU gives in minutes",
        "cardigan train mnist --minutes 2",
        "2 minutes on 2 CPU cores (AVX-512 bf16), 230,000 to 290,000 images",
        "digit distance 13.2, from 12.0 to 16.3 in 6 runs over 3 seeds (5,000 samples; real training digits 1.5)",
    ),
    "tutorial": Recipe(
        tutorial,
        "the MXNet tutorial DCGAN on MNIST, exactly",
        "cardigan train mnist --recipe tutorial",
        "21 minutes on 2 CPU cores (AVX-512 bf16, other work beside it), one epoch",
        "digit distance 202 with one seed (5,000 samples; real training digits 1.5)",
    ),
}

DEFAULT_RECIPES = {"mnist": "mnist", "stacked-mnist": "stacked-mnist"}
"""The recipe a source is trained with when none is named."""


def find_recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]


def config_for(source: str, recipe: str | None = None) -> Config:
    """Return the config of a recipe, or of the one made for this source, with this source's pictures.

    Raises CardiganError for an unknown source or recipe.
    """
    if source not in DEFAULT_RECIPES:
        raise unknown("source", source, DEFAULT_RECIPES)
    config = find_recipe(recipe or DEFAULT_RECIPES[source]).config()
    return replace(config, data=replace(config.data, source=source))
