"""Recipes: each is a function that returns a whole Config, with a promise that a command in `benchmarks/` reproduces.

Imports no torch.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from cardigan.config import STACKED_MNIST, Config
from cardigan.config_parts import DataConfig, EmaConfig, LatentConfig, NetworkConfig, ObjectiveConfig, OptimizerConfig
from cardigan.errors import unknown


def mnist() -> Config:
    """Return the config for the best digits in minutes on a laptop CPU.

    Images are 32x32, grayscale. A class-conditional DCGAN trains with the relativistic loss, R1 and R2.

    Promise: median and range of 3 seeds, on 2 CPU cores.

    | options of `cardigan train mnist` | CPU | images | samples | `fd_digits` |
    |---|---|---|---|---|
    | `--minutes 2` | AVX2, no bf16 | 64,000 | 5,000 | 6.9 (5.6-7.4) |
    | `--minutes 10` | AVX2, no bf16 | 320,000 | 2,000 | 3.9 (2.7-4.1) |
    | `--minutes 2` | AVX-512 bf16 | 200,000 | 5,000 | 3.55 (3.43-3.69) |
    | `--minutes 2 --no-conditional` | AVX-512 bf16 | 230,000-290,000 | 5,000 | 12.6 (10.0-16.3) |

    The third row was measured with constant learning rates. The fourth is three seeds at three times of day, nine runs.
    Commands: `python benchmarks/recipe_scores.py --recipe mnist --minutes 2`; for 10 minutes
    `python benchmarks/result_tables.py time`.
    """
    return replace(_base_32px(), recipe="mnist", conditional=True)


def _base_32px() -> Config:
    """Return the settings that the 32x32 recipes share. They fit any images, class-conditional or not.

    The learning rates decay from 100,000 images on. At a constant 2e-3 the input gradients of D vanish after about
    400,000 images, and G drifts away (lab book).
    """
    adam = OptimizerConfig(learning_rate=2e-3, beta1=0.0, beta2=0.99, decay_start_images=100_000)
    return Config(
        images=1_000_000,
        batch_size=64,
        checkpoint_every_images=50_000,
        sample_every_images=20_000,
        data=DataConfig(height=32, width=32, channels=1, resize="pad"),
        latent=LatentConfig(size=64),
        generator=NetworkConfig(width=32, normalization="batch", initialization="dcgan"),
        discriminator=NetworkConfig(width=32),
        objective=ObjectiveConfig(loss="relativistic", penalties={"r1": 0.3, "r2": 0.3}, penalty_interval=4),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        ema=EmaConfig(half_life_images=20_000, rampup_ratio=0.1),
    )


def tutorial() -> Config:
    """Return the Apache MXNet tutorial "DCGAN on MNIST" without changes: 64x64x3, one epoch of the training digits.

    Promise: `fd_digits` 199 (196-267, 3 seeds) in 15 minutes on 2 CPU cores (AVX-512 bf16), by
    `python benchmarks/recipe_scores.py --recipe tutorial`.
    """
    adam = OptimizerConfig(learning_rate=2e-4, beta1=0.5, beta2=0.999)
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


def mnist_clusters() -> Config:
    """Return `mnist` for digits without labels: clusters of similar images take the place of the classes.

    Without classes `mnist` stops at 10 (`data.clusters`, docs/lab-book.md).

    Promise: 5 minutes on 2 CPU cores (AVX-512 bf16), 320,000 to 380,000 images, reach an `fd_digits` of 4.0 (3.0-4.6, 3
    seeds, 5,000 samples), by `python benchmarks/recipe_scores.py --recipe mnist-clusters --minutes 5`.
    """
    config = mnist()
    return replace(config, recipe="mnist-clusters", data=replace(config.data, clusters=1_000))


def mnist_conditional() -> Config:
    """Return `mnist` for an hour instead of minutes, with a longer EMA: samples good enough to train a classifier on.

    Promise: 3,000,000 images take 39 minutes on one CPU core (AVX-512 bf16) and reach, with 1 seed:

    | number | samples | value |
    |---|---|---|
    | `fd_digits` | 2,000 | 3.3 |
    | 1-NN test error | 50,000 | 3.52 % |
    | 1-NN test error | 500,000 | 2.41 % |
    | 1-NN test error | 1,000,000 | 2.29 % |
    | 1-NN test error of real training digits, sampled with replacement | 50,000 | 3.66 % |

    Command (see docs/results.md):
    `python benchmarks/result_tables.py nn-error --seeds 0 --images 3000000
    --samples 50000 --samples 500000 --samples 1000000`.
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
    """Return `mnist-conditional` at 24x24, with three downsampling stages (to 3x3).

    A step costs three fifths of `mnist-conditional`. A 1-NN classifier on these samples is more accurate, as it is on
    real digits of this resolution (docs/results.md). The learning rate is less than half: with it half as many images
    reach the same error (lab book).

    Promise: 3,000,000 images take 26 to 28 minutes on one CPU core (AVX-512 bf16) and reach:

    | samples | 1-NN test error |
    |---|---|
    | 50,000 | 3.03 % (2.91-3.13, 3 seeds) |
    | 500,000 | 1.98 % |
    | 1,000,000 | 1.83 % |

    Command:
    `python benchmarks/result_tables.py nn-error --recipe mnist-coarse --images 3000000
    --samples 50000 --samples 500000 --samples 1000000`.
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
    """Return unconditional `mnist` on three stacked digits, one per color channel: 1,000 modes (docs/results.md).

    Promise: 3,000,000 images take 31 minutes on one CPU core (AVX-512 bf16) and find all 1,000 modes. The KL divergence
    is 0.027 (0.0267-0.0272, 3 seeds); perfect sampling has 0.019.
    Command: `python benchmarks/result_tables.py stacked-mnist --images 3000000`.
    """
    config = _base_32px()
    return replace(
        config,
        recipe=STACKED_MNIST,
        images=3_000_000,
        data=replace(config.data, source=STACKED_MNIST, channels=3),
        ema=EmaConfig(half_life_images=60_000, rampup_ratio=0.1),
    )


def gan2014() -> Config:
    """Return the MNIST experiment of the first GAN (arXiv:1406.2661, section 5).

    G has ReLU layers, D has maxout layers, latents are uniform, and there are no convolutions.
    Differences: Adam instead of momentum, no dropout in D, and the EMA of G is the result.

    Promise: 500,000 images take 2 to 4 minutes on one CPU core (AVX-512 bf16) and reach an `fd_digits` of 224 (202-265,
    10 seeds, 2,000 samples), still falling.
    Command: `python benchmarks/result_tables.py collapse --recipe gan2014 --images 500000`.
    """
    adam = OptimizerConfig(learning_rate=2e-4, beta1=0.5, beta2=0.999)
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
    """Return the conditional MNIST experiment of the DCGAN paper (arXiv:1511.06434, appendix A).

    Classes are one-hot, and both networks have batch normalization.

    Promise: 130,000 images take 2 to 3 minutes on one CPU core (AVX-512 bf16) and reach an `fd_digits` of 149 (136-170,
    10 seeds, 2,000 samples), still falling.
    Command: `python benchmarks/result_tables.py collapse --recipe dcgan-paper-mnist --images 130000`.
    """
    adam = OptimizerConfig(learning_rate=2e-4, beta1=0.5, beta2=0.999)
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
    """Return WGAN-GP (arXiv:1704.00028, algorithm 1) on a DCGAN whose critic has no normalization.

    Lambda is 10, with five critic steps per generator step and Adam 1e-4, beta 0 and 0.9.

    Promise: 150,000 images take 2 to 3 minutes on one CPU core (AVX-512 bf16) and reach an `fd_digits` of 531 (459-544,
    10 seeds, 2,000 samples), still falling: the critic takes five of six steps.
    Command: `python benchmarks/result_tables.py collapse --recipe wgan-gp --images 150000`.
    """
    adam = OptimizerConfig(learning_rate=1e-4, beta1=0.0, beta2=0.9)
    config = _base_32px()
    return replace(
        config,
        recipe="wgan-gp",
        images=3_000_000,
        n_critic=5,
        objective=ObjectiveConfig(loss="wasserstein", penalties={"wgan_gp": 10.0}),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
    )


def sngan() -> Config:
    """Return SNGAN (arXiv:1802.05957, appendix B): residual networks, spectral normalization in D, hinge loss.

    There are five D steps per G step, with Adam 2e-4, beta 0 and 0.9.

    Promise: 100,000 images take 4 minutes on one CPU core (AVX-512 bf16) and reach an `fd_digits` of 245 (224-261,
    3 seeds, 5,000 samples), still falling.
    Command: `python benchmarks/recipe_scores.py --recipe sngan --images 100000`.
    """
    adam = OptimizerConfig(learning_rate=2e-4, beta1=0.0, beta2=0.9)
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
    """Return R3GAN (arXiv:2501.05441): residual networks without normalization, relativistic loss, decaying penalties.

    The penalties start at ten times their weight. Not measured yet: 71 million multiply-adds per image allow only
    37 images/s on a CPU core, so it needs a GPU.
    """
    adam = OptimizerConfig(learning_rate=2e-4, beta1=0.0, beta2=0.99)
    config = _base_32px()
    return replace(
        config,
        recipe="r3gan",
        images=5_000_000,
        generator=NetworkConfig(network="r3gan", width=32),
        discriminator=NetworkConfig(network="r3gan", width=32),
        objective=ObjectiveConfig(
            loss="relativistic",
            penalties={"r1": 0.1, "r2": 0.1},
            penalty_initial_factor=10.0,
            penalty_decay_images=500_000,
        ),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
    )


def images_dcgan() -> Config:
    """Return `images` as it was before pretrained features: DCGAN at 64x64 with the loss and penalties of `mnist`.

    Size, channels, width, augmentation, holdout and time are chosen for the images and the machine unless they are
    given (`cardigan.experiment.auto`).

    Promise: trained on 3,786 icons of 64x64 with transparency, G generates recognizable icons after an hour on one CPU
    core (0.93 million images, seed 0). One run, evaluated by eye and with the quick score only.
    Commands: docs/results.md, "Icons without pretrained features".
    """
    adam = OptimizerConfig(learning_rate=1e-3, beta1=0.0, beta2=0.99)
    config = _base_32px()
    return replace(
        config,
        recipe="images-dcgan",
        images=2_000_000,
        data=replace(config.data, height=64, width=64, channels=3, resize="crop"),
        latent=LatentConfig(size=128),
        generator=replace(config.generator, width=64),
        discriminator=replace(config.discriminator, width=64),
        objective=replace(
            config.objective,
            penalties={"r1": 1.0, "r2": 1.0},
            penalty_initial_factor=10.0,
            penalty_decay_images=500_000,
        ),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
    )


def images() -> Config:
    """Return the default for a source of images: a light generator against a discriminator on pretrained features.

    Size, channels, width, augmentation, holdout and time are chosen for the images and the machine unless they are
    given (`cardigan.experiment.auto`). Without the extra `features` the discriminator is that of `images-dcgan`.

    The discriminator is a small Projected GAN's (arXiv:2111.01007). Small batches, a generator that learns ten times
    as fast as the discriminator, and strong penalties in feature space were the best of the trials in
    docs/lab-book.md.

    Promise: the Frechet distance over EfficientNet-Lite2 is at most 0.45 times that of `images-dcgan` after as long for
    1,000 cartoon faces, 15 minutes on one CPU core (AVX-512 bf16, 49,000 images, 3 seeds), and at most 0.6 times for
    3,786 icons, 30 minutes (54,000 to 89,000 icons, 3 runs, two of them beside other work), 0.5 times after 60 (175,000
    icons, 1 run). Commands: docs/results.md, "1,000 avatars" and "Icons".
    """
    config = images_dcgan()
    return replace(
        config,
        recipe="images",
        batch_size=16,
        generator=NetworkConfig(network="light", width=16, normalization="batch"),
        discriminator=NetworkConfig(network="projected", width=64, options={"image_width": 64}),
        objective=replace(
            config.objective, penalties={"r1": 100.0, "r2": 100.0}, penalty_initial_factor=1.0, penalty_decay_images=0
        ),
        ema=replace(config.ema, half_life_images=10_000, statistics_samples=256),
        generator_optimizer=replace(config.generator_optimizer, learning_rate=3e-3),
        discriminator_optimizer=replace(config.discriminator_optimizer, learning_rate=3e-4),
    )


@dataclass(frozen=True)
class Recipe:
    """A recipe and its expected time and score, as measured by `benchmarks/recipe_scores.py`."""

    config: Callable[[], Config]
    purpose: str
    command: str
    expected_time: str
    expected_score: str


NOT_MEASURED = "not measured yet"

RECIPES = {
    "mnist": Recipe(
        mnist,
        "the best digits in minutes on a laptop CPU, class-conditional",
        "cardigan train mnist --minutes 2",
        "2 minutes on 2 CPU cores (AVX2), 64,000 images; 200,000 with AVX-512 bf16",
        "fd_digits 6.9 (5.6-7.4, 3 seeds, 5,000 samples; real training digits 1.5); "
        "3.55 with AVX-512 bf16; 3.9 after 10 minutes",
    ),
    "tutorial": Recipe(
        tutorial,
        "the MXNet tutorial DCGAN on MNIST, without changes",
        "cardigan train mnist --recipe tutorial",
        "15 minutes on 2 CPU cores (AVX-512 bf16), one epoch",
        "fd_digits 199 (196-267, 3 seeds, 5,000 samples; real training digits 1.5)",
    ),
    "mnist-clusters": Recipe(
        mnist_clusters,
        "digits without their labels, in clusters of similar images",
        "cardigan train mnist --recipe mnist-clusters --minutes 5",
        "5 minutes on 2 CPU cores (AVX-512 bf16), 320,000 to 380,000 images",
        "fd_digits 4.0 (3.0-4.6, 3 seeds, 5,000 samples; real training digits 1.5)",
    ),
    "mnist-conditional": Recipe(
        mnist_conditional,
        "digits by class, good enough to train a classifier on",
        "cardigan train mnist --recipe mnist-conditional",
        "39 minutes on one CPU core (AVX-512 bf16), 3,000,000 images",
        "1-NN test error 3.52 ± 0.18 % from 50,000 samples, 2.29 ± 0.15 % from a million "
        "(1 seed; 50,000 real digits 3.66 %); fd_digits 3.3 (2,000 samples)",
    ),
    "mnist-coarse": Recipe(
        mnist_coarse,
        "low-resolution digits by class, to train a classifier on",
        "cardigan train mnist --recipe mnist-coarse",
        "26 to 28 minutes on one CPU core (AVX-512 bf16), 3,000,000 images",
        "1-NN test error 3.03 ± 0.17 % from 50,000 samples (2.91-3.13 %, 3 seeds), 1.98 % from 500,000, "
        "1.83 % from a million",
    ),
    STACKED_MNIST: Recipe(
        stacked_mnist,
        "three digits at a time: 1,000 modes to find",
        "cardigan train stacked-mnist",
        "31 minutes on one CPU core (AVX-512 bf16), 3,000,000 images",
        "all 1,000 modes, KL divergence 0.027 ± 0.002 (3 seeds, 26,000 samples; perfect sampling 0.019)",
    ),
    "gan2014": Recipe(
        gan2014,
        "the first GAN, without convolutions",
        "cardigan train mnist --recipe gan2014 --images 500000",
        "2 to 4 minutes on one CPU core (AVX-512 bf16)",
        "fd_digits 224 (202-265, 10 seeds, 2,000 samples), still falling",
    ),
    "dcgan-paper-mnist": Recipe(
        dcgan_paper_mnist,
        "the DCGAN paper's conditional digits",
        "cardigan train mnist --recipe dcgan-paper-mnist --images 130000",
        "2 to 3 minutes on one CPU core (AVX-512 bf16)",
        "fd_digits 149 (136-170, 10 seeds, 2,000 samples), still falling",
    ),
    "wgan-gp": Recipe(
        wgan_gp,
        "a Wasserstein critic with a gradient penalty",
        "cardigan train mnist --recipe wgan-gp --images 150000",
        "2 to 3 minutes on one CPU core (AVX-512 bf16)",
        "fd_digits 531 (459-544, 10 seeds, 2,000 samples), still falling",
    ),
    "sngan": Recipe(
        sngan,
        "residual networks, spectral normalization, hinge loss",
        "cardigan train mnist --recipe sngan --images 100000",
        "4 minutes on one CPU core (AVX-512 bf16)",
        "fd_digits 245 (224-261, 3 seeds, 5,000 samples), still falling",
    ),
    "r3gan": Recipe(
        r3gan,
        "modern residual networks with the relativistic loss",
        "cardigan train mnist --recipe r3gan",
        NOT_MEASURED,
        NOT_MEASURED,
    ),
    "images": Recipe(
        images,
        "the default for images of any kind, on pretrained features",
        "cardigan train ./photos",
        "30 minutes on one CPU core (AVX-512 bf16), 89,000 images of 64x64 with transparency",
        "fd_efficientnet_lite2 84 on icons, where images-dcgan has 162 (one seed, 2,000 samples); after 15 minutes 46 "
        "(45-60, 3 seeds) on 1,000 avatars, where it has 141",
    ),
    "images-dcgan": Recipe(
        images_dcgan,
        "images of any kind, without pretrained features",
        "cardigan train ./photos --recipe images-dcgan",
        "60 minutes on one CPU core (AVX-512 bf16), 0.93 million images of 64x64 with transparency",
        "recognizable icons, learned from 3,786 (docs/results.md); quick score 382, one run, no other evaluation",
    ),
}

SOURCE_CHANNELS = {STACKED_MNIST: 3}
"""Channels of color sources, for every recipe. Grayscale images can be repeated over any number of channels."""
DEFAULT_RECIPES = {"mnist": "mnist", STACKED_MNIST: STACKED_MNIST}
"""The default recipe of each built-in source."""
GENERIC_RECIPE = "images"
"""The default recipe of all other sources."""
PLAIN_RECIPE = "images-dcgan"
"""The recipe whose settings suit a discriminator without pretrained features."""
AUTOMATIC_RECIPES = (GENERIC_RECIPE, PLAIN_RECIPE)
"""Recipes of which many settings are chosen for the images and the machine."""
AUTOMATIC_SETTINGS = (
    *("data.height", "data.width", "data.channels", "data.resize", "data.holdout", "batch_size"),
    *("generator.width", "discriminator.width", "discriminator.network"),
    *("augment.operations", "augment.probability", "augment.target", "augment.ramp_images", "augment.start_images"),
    *("objective.penalties", "objective.penalty_initial_factor", "objective.penalty_decay_images"),
    *("generator_optimizer.learning_rate", "discriminator_optimizer.learning_rate"),
    *("ema.half_life_images", "ema.statistics_samples"),
)
"""What may be chosen for those recipes and changes what is learned (`cardigan.experiment.auto`)."""


def find_recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]


def config_for(source: str, recipe: str | None = None) -> Config:
    """Return the config of a recipe for a source; without a name, of the source's default recipe.

    `source` is a name, a path or a URL as in `train`; it is not opened. `recipe` is a name of docs/recipes.md.

    Raises CardiganError for an unknown recipe.

    Examples:
        >>> import cardigan
        >>> cardigan.config_for("mnist").objective.loss
        'relativistic'
        >>> cardigan.config_for("photos/").recipe
        'images'
    """
    config = find_recipe(recipe or DEFAULT_RECIPES.get(source, GENERIC_RECIPE)).config()
    return replace(
        config, data=replace(config.data, source=source, channels=SOURCE_CHANNELS.get(source, config.data.channels))
    )
