"""Named experiments: each a function that returns a whole Config, with a promise that a command in `benchmarks/` reproduces.

Knows settings only, no torch.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from cardigan.config import (
    AdamConfig,
    Config,
    DataConfig,
    EmaConfig,
    LatentConfig,
    NetworkConfig,
    ObjectiveConfig,
)
from cardigan.errors import unknown


def mnist() -> Config:
    """Return the best digits a laptop CPU gives in minutes: 32x32, grey, a DCGAN told each digit's class, under the relativistic loss with R1 and R2.

    Promise: `cardigan train mnist --minutes 2` on 2 CPU cores without bf16 (AVX2, 64,000 images) reaches an `fd_digits` of 6.9, from 5.6 to 7.4
    over 3 seeds, by `python benchmarks/recipe_scores.py --recipe mnist --minutes 2`; after 10 minutes, 320,000 images, 3.9, from 2.7 to 4.1 (2,000
    samples), by `python benchmarks/result_tables.py time`. Cores with AVX-512 bf16 see 200,000 images in two minutes: 3.55, from 3.43 to 3.69, when the
    rates did not fall yet. With `--no-conditional`, which tells no classes, on those: 12.6, from 10.0 to 16.3 over 3 seeds at three times of day.
    """
    return replace(_base_32px(), recipe="mnist", conditional=True)


def _base_32px() -> Config:
    """Return what the recipes of this size share; it trains on any pictures, with classes or without.

    The rates fall from 100,000 images on: at a constant 2e-3 D goes flat after some 400,000, its slopes vanish, and G drifts away (lab book).
    """
    adam = AdamConfig(learning_rate=2e-3, beta1=0.0, beta2=0.99, decay_start_images=100_000)
    return Config(
        images=1_000_000,
        batch_size=64,
        checkpoint_every_images=50_000,
        sample_every_images=20_000,
        data=DataConfig(height=32, width=32, channels=1, resize="pad"),
        latent=LatentConfig(size=64),
        generator=NetworkConfig(width=32, normalization="batch", initialization="dcgan"),
        discriminator=NetworkConfig(width=32),
        objective=ObjectiveConfig(loss="relativistic", r1=0.3, r2=0.3, penalty_interval=4),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        ema=EmaConfig(half_life_images=20_000, rampup_ratio=0.1),
    )


def tutorial() -> Config:
    """Return the Apache MXNet tutorial "DCGAN on MNIST", exactly: 64x64x3, one epoch of the training digits.

    Promise: 15 minutes on 2 CPU cores (AVX-512 bf16), `fd_digits` 199, from 196 to 267 over 3 seeds, by
    `python benchmarks/recipe_scores.py --recipe tutorial`.
    """
    adam = AdamConfig(learning_rate=2e-4, beta1=0.5, beta2=0.999)
    network = NetworkConfig(width=128, normalization="batch-no-scale", initialization="dcgan")
    return Config(
        recipe="tutorial",
        images=60_000,
        batch_size=64,
        checkpoint_every_images=12_800,
        sample_every_images=3_200,
        data=DataConfig(height=64, width=64, channels=3, resize="crop"),
        latent=LatentConfig(size=100),
        generator=network,
        discriminator=network,
        objective=ObjectiveConfig(loss="non-saturating"),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        ema=EmaConfig(half_life_images=0, rampup_ratio=0.0),
    )


def mnist_conditional() -> Config:
    """Return `mnist` for an hour rather than minutes: rates that fall as 1/sqrt(images) and a longer average draw finer and more various digits of
    each class, good enough to fit a classifier on (docs/results.md).

    Promise: 3,000,000 images, 39 minutes on one CPU core (AVX-512 bf16), reach an `fd_digits` of 3.3 (2,000 samples), and a 1-nearest-neighbour
    test error of 3.52 % from 50,000 samples, 2.41 % from 500,000 and 2.29 % from a million (one seed; the training digits themselves, 50,000 drawn
    with replacement, 3.66 %), by
    `python benchmarks/result_tables.py nn-error --seeds 0 --images 3000000 --samples 50000 --samples 500000 --samples 1000000`.
    """
    return replace(
        mnist(),
        recipe="mnist-conditional",
        images=3_000_000,
        checkpoint_every_images=100_000,
        sample_every_images=100_000,
        ema=EmaConfig(half_life_images=60_000, rampup_ratio=0.1),
    )


def mnist_coarse() -> Config:
    """Return `mnist-conditional` at 24x24, resized, with a third halving to 3x3: coarse digits cost three fifths as much, and the nearest of
    them names a test digit rightly more often; so does the nearest of real digits made as coarse (docs/results.md).

    Its rate is less than half theirs: half as many images do as well (lab book).

    Promise: 3,000,000 images, 26 to 28 minutes on one CPU core (AVX-512 bf16), reach a 1-nearest-neighbour test error of 3.03 % from 50,000 samples,
    from 2.91 to 3.13 % over 3 seeds, 1.98 % from 500,000 and 1.83 % from a million, by
    `python benchmarks/result_tables.py nn-error --recipe mnist-coarse --images 3000000 --samples 50000 --samples 500000 --samples 1000000`.
    """
    config = mnist_conditional()
    adam = replace(config.generator_optimizer, learning_rate=8e-4)
    return replace(
        config,
        recipe="mnist-coarse",
        data=replace(config.data, height=24, width=24, resize="stretch"),
        generator=replace(config.generator, depth=3),
        discriminator=replace(config.discriminator, depth=3),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
    )


def stacked_mnist() -> Config:
    """Return `mnist`, told no classes, on three digits at a time, as red, green and blue: a thousand modes to find (docs/results.md).

    Promise: 3,000,000 images, 31 minutes on one CPU core (AVX-512 bf16), find all 1,000 modes with a divergence of 0.027 over 3 seeds (0.0267 to
    0.0272; perfect sampling 0.019), by `python benchmarks/result_tables.py stacked-mnist --images 3000000`.
    """
    config = _base_32px()
    return replace(
        config,
        recipe="stacked-mnist",
        images=3_000_000,
        data=replace(config.data, source="stacked-mnist", channels=3),
        ema=EmaConfig(half_life_images=60_000, rampup_ratio=0.1),
    )


def gan2014() -> Config:
    """Return the first GAN's MNIST experiment (arXiv:1406.2661, section 5): ReLU layers against maxout, uniform noise, no convolution.

    Departures: Adam instead of momentum, no dropout in D, the average of G's weights is what is kept.

    Promise: 500,000 images, 2 to 4 minutes on one CPU core (AVX-512 bf16), reach an `fd_digits` of 224, from 202 to 265 over 10 seeds (2,000
    samples), still falling, by `python benchmarks/result_tables.py collapse --recipe gan2014 --images 500000`.
    """
    adam = AdamConfig(learning_rate=2e-4, beta1=0.5, beta2=0.999)
    network = NetworkConfig(network="mlp", width=1200)
    return Config(
        recipe="gan2014",
        images=1_500_000,
        batch_size=100,
        data=DataConfig(height=28, width=28, channels=1),
        latent=LatentConfig(size=100, distribution="uniform"),
        generator=network,
        discriminator=network,
        objective=ObjectiveConfig(loss="non-saturating"),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        ema=EmaConfig(half_life_images=20_000, rampup_ratio=0.1),
    )


def dcgan_paper_mnist() -> Config:
    """Return the DCGAN paper's conditional MNIST experiment (arXiv:1511.06434, appendix A): one-hot classes, batch normalisation in both players.

    Promise: 130,000 images, 2 to 3 minutes on one CPU core (AVX-512 bf16), reach an `fd_digits` of 149, from 136 to 170 over 10 seeds (2,000
    samples), still falling, by `python benchmarks/result_tables.py collapse --recipe dcgan-paper-mnist --images 130000`.
    """
    adam = AdamConfig(learning_rate=2e-4, beta1=0.5, beta2=0.999)
    network = NetworkConfig(width=64, normalization="batch", initialization="dcgan", conditioning="one-hot")
    return Config(
        recipe="dcgan-paper-mnist",
        images=1_250_000,
        batch_size=128,
        conditional=True,
        data=DataConfig(height=28, width=28, channels=1),
        latent=LatentConfig(size=100, distribution="uniform"),
        generator=network,
        discriminator=network,
        objective=ObjectiveConfig(loss="non-saturating"),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        ema=EmaConfig(half_life_images=0, rampup_ratio=0.0),
    )


def wgan_gp() -> Config:
    """Return WGAN-GP (arXiv:1704.00028, algorithm 1: lambda 10, five critic steps, Adam 1e-4, beta 0 and 0.9) on a DCGAN whose critic has no norm.

    Promise: 150,000 images, 2 to 3 minutes on one CPU core (AVX-512 bf16), reach an `fd_digits` of 531, from 459 to 544 over 10 seeds (2,000
    samples), still falling: the critic takes five of six steps, by `python benchmarks/result_tables.py collapse --recipe wgan-gp --images 150000`.
    """
    adam = AdamConfig(learning_rate=1e-4, beta1=0.0, beta2=0.9)
    config = _base_32px()
    return replace(
        config,
        recipe="wgan-gp",
        images=3_000_000,
        n_critic=5,
        objective=ObjectiveConfig(loss="wasserstein", wgan_gp=10.0),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
    )


def sngan() -> Config:
    """Return SNGAN (arXiv:1802.05957, appendix B: residual networks, spectral norm in D, hinge loss, five steps of D, Adam 2e-4, beta 0 and 0.9).

    Promise: 100,000 images, 4 minutes on one CPU core (AVX-512 bf16), reach an `fd_digits` of 245, from 224 to 261 over 3 seeds (5,000 samples),
    still falling, by `python benchmarks/recipe_scores.py --recipe sngan --images 100000`.
    """
    adam = AdamConfig(learning_rate=2e-4, beta1=0.0, beta2=0.9)
    config = _base_32px()
    return replace(
        config,
        recipe="sngan",
        images=3_000_000,
        n_critic=5,
        generator=NetworkConfig(network="resnet", width=32, normalization="batch"),
        discriminator=NetworkConfig(network="resnet", width=32, spectral_norm=True),
        objective=ObjectiveConfig(loss="hinge"),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
    )


def r3gan() -> Config:
    """Return R3GAN (arXiv:2501.05441): residual networks without normalisation, the relativistic loss, penalties that begin ten times larger.

    Not measured yet: 71 million multiply-adds a picture are 37 images a second on a CPU core; it waits for a GPU.
    """
    adam = AdamConfig(learning_rate=2e-4, beta1=0.0, beta2=0.99)
    config = _base_32px()
    return replace(
        config,
        recipe="r3gan",
        images=5_000_000,
        generator=NetworkConfig(network="r3gan", width=32),
        discriminator=NetworkConfig(network="r3gan", width=32),
        objective=ObjectiveConfig(
            loss="relativistic", r1=0.1, r2=0.1, penalty_initial_factor=10.0, penalty_decay_images=500_000
        ),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
    )


def images() -> Config:
    """Return the default for a source of pictures: 64x64 in colour, the game of `mnist`.

    Size, channels, width, augmentation, held-out pictures and time are chosen for the pictures and the machine where they are not given
    (`cardigan.experiment.auto`).

    Promise: 3,786 icons of 64x64 with transparency become recognisable ones in an hour on one CPU core, 0.93 million images, seed 0, by the
    commands in docs/results.md, "Icons"; one run, judged by eye and the quick score alone.
    """
    adam = AdamConfig(learning_rate=1e-3, beta1=0.0, beta2=0.99)
    config = _base_32px()
    return replace(
        config,
        recipe="images",
        images=2_000_000,
        data=replace(config.data, height=64, width=64, channels=3, resize="crop"),
        latent=LatentConfig(size=128),
        generator=replace(config.generator, width=64),
        discriminator=replace(config.discriminator, width=64),
        objective=replace(config.objective, r1=1.0, r2=1.0, penalty_initial_factor=10.0, penalty_decay_images=500_000),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
    )


@dataclass(frozen=True)
class Recipe:
    """A named experiment and what may be expected of it; the figures are measured by `benchmarks/recipe_scores.py`."""

    config: Callable[[], Config]
    purpose: str
    command: str
    expected_time: str
    expected_score: str


NOT_MEASURED = "not measured yet"

RECIPES = {
    "mnist": Recipe(
        mnist,
        "the best digits a laptop CPU gives in minutes, each of the class asked for",
        "cardigan train mnist --minutes 2",
        "2 minutes on 2 CPU cores (AVX2), 64,000 images; 200,000 with AVX-512 bf16",
        "fd_digits 6.9, from 5.6 to 7.4 over 3 seeds (5,000 samples; real training digits 1.5); 3.55 with AVX-512 bf16; 3.9 after 10 minutes",
    ),
    "tutorial": Recipe(
        tutorial,
        "the MXNet tutorial DCGAN on MNIST, exactly",
        "cardigan train mnist --recipe tutorial",
        "15 minutes on 2 CPU cores (AVX-512 bf16), one epoch",
        "fd_digits 199, from 196 to 267 over 3 seeds (5,000 samples; real training digits 1.5)",
    ),
    "mnist-conditional": Recipe(
        mnist_conditional,
        "digits by class, good enough to train a classifier on",
        "cardigan train mnist --recipe mnist-conditional",
        "39 minutes on one CPU core (AVX-512 bf16), 3,000,000 images",
        "1-NN test error 3.52 ± 0.18 % from 50,000 samples, 2.29 ± 0.15 % from a million (1 seed; 50,000 real digits 3.66 %); "
        "fd_digits 3.3 (2,000 samples)",
    ),
    "mnist-coarse": Recipe(
        mnist_coarse,
        "coarse digits by class, to fit a classifier on",
        "cardigan train mnist --recipe mnist-coarse",
        "26 to 28 minutes on one CPU core (AVX-512 bf16), 3,000,000 images",
        "1-NN test error 3.03 %, from 2.91 to 3.13 % over 3 seeds (± 0.17 %), from 50,000 samples, 1.98 % from 500,000, 1.83 % from a million",
    ),
    "stacked-mnist": Recipe(
        stacked_mnist,
        "three digits at a time: a thousand modes to find",
        "cardigan train stacked-mnist",
        "31 minutes on one CPU core (AVX-512 bf16), 3,000,000 images",
        "all 1,000 modes, divergence 0.027 ± 0.002 (3 seeds, 26,000 samples; perfect sampling 0.019)",
    ),
    "gan2014": Recipe(
        gan2014,
        "the first GAN, without convolutions",
        "cardigan train mnist --recipe gan2014 --images 500000",
        "2 to 4 minutes on one CPU core (AVX-512 bf16)",
        "fd_digits 224, from 202 to 265 over 10 seeds (2,000 samples), still falling",
    ),
    "dcgan-paper-mnist": Recipe(
        dcgan_paper_mnist,
        "the DCGAN paper's conditional digits",
        "cardigan train mnist --recipe dcgan-paper-mnist --images 130000",
        "2 to 3 minutes on one CPU core (AVX-512 bf16)",
        "fd_digits 149, from 136 to 170 over 10 seeds (2,000 samples), still falling",
    ),
    "wgan-gp": Recipe(
        wgan_gp,
        "a Wasserstein critic with a gradient penalty",
        "cardigan train mnist --recipe wgan-gp --images 150000",
        "2 to 3 minutes on one CPU core (AVX-512 bf16)",
        "fd_digits 531, from 459 to 544 over 10 seeds (2,000 samples), still falling",
    ),
    "sngan": Recipe(
        sngan,
        "residual networks, spectral normalisation, hinge loss",
        "cardigan train mnist --recipe sngan --images 100000",
        "4 minutes on one CPU core (AVX-512 bf16)",
        "fd_digits 245, from 224 to 261 over 3 seeds (5,000 samples), still falling",
    ),
    "r3gan": Recipe(
        r3gan,
        "modern residual networks under the relativistic loss",
        "cardigan train mnist --recipe r3gan",
        NOT_MEASURED,
        NOT_MEASURED,
    ),
    "images": Recipe(
        images,
        "the default for pictures of any kind",
        "cardigan train ./photos",
        "60 minutes on one CPU core (AVX-512 bf16), 0.93 million images of 64x64 with transparency",
        "recognisable icons, learned from 3,786 (README); one run, not judged beyond the quick score, 382",
    ),
}

SOURCE_CHANNELS = {"stacked-mnist": 3}
"""The channels of sources that have colour, whatever the recipe says; grey pictures can be repeated over any number of them."""
DEFAULT_RECIPES = {"mnist": "mnist", "stacked-mnist": "stacked-mnist"}
"""The recipe a source is trained with when none is named."""
GENERIC_RECIPE = "images"
"""What any pictures are trained with; its settings are starting points, chosen for the pictures and the machine."""
"""The same for every other source."""


def find_recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]


def config_for(source: str, recipe: str | None = None) -> Config:
    """Return the config of a recipe, or of the one made for this source, with this source's pictures; raises CardiganError for an unknown recipe."""
    config = find_recipe(recipe or DEFAULT_RECIPES.get(source, GENERIC_RECIPE)).config()
    return replace(
        config, data=replace(config.data, source=source, channels=SOURCE_CHANNELS.get(source, config.data.channels))
    )
