"""The rungs of `cardigan bench`: fixed tasks of a source, a recipe, a score, a target and a limit each.

One entry of `RUNGS` makes a rung. A rung whose target or protocol changes gets a new name, so that results stay
comparable.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cardigan.backbones.efficientnet import EXAMINER, is_installed
from cardigan.config import BUILTIN_SOURCES, STACKED_MNIST
from cardigan.errors import CardiganError, unknown
from cardigan.files.disk_cache import cache_dir
from cardigan.recipes import find_recipe

IMAGE_SETS_FOLDER = "image-sets"
"""Where `benchmarks/image_sets.py` puts its sets, in the cache folder."""


@dataclass(frozen=True)
class Rung:
    """What is trained, and when it is good enough.

    The score is the quick score of the run's checkpoints, measured every `cadence_images` images. Its time does not
    count. A run ends when two checkpoints in a row are at the target, or at the limit.
    """

    purpose: str
    source: str
    """A built-in source, or the name of a set of `benchmarks/image_sets.py`."""
    recipe: str
    """The recipe that holds the target so far."""
    score: str
    """What the quick score is for this source, and of how many samples."""
    target: float
    cadence_images: int
    limit_minutes: float
    """On two CPU cores or on a GPU. A run that has not reached the target then is recorded as such."""
    memory_gigabytes: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings by dotted name on top of any recipe: what all results of the rung have in common."""
    recipe_settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings on top of the rung's own recipe only: what `train` would choose, fixed, so that no measured speed
    decides."""
    is_conditional: bool | None = None
    """Whether the generator is told the class. None: it makes no difference."""


DIGIT_SCORE = "Frechet distance over the embedded digit classifier to the 10,000 test digits, 2,000 samples"
IMAGE_SCORE = (
    "Frechet distance over EfficientNet-Lite2 at 128x128, 1,000 samples against the first 1,000 training images "
    "(or all, if there are fewer)"
)
SIDE_64 = {"data.height": 64, "data.width": 64}


def late_augmentation(start_images: int) -> dict[str, Any]:
    """Return what `train` chooses for few images: DiffAugment from the 30th epoch on."""
    chosen = {"augment.operations": "color,translation,cutout", "augment.probability": 1.0, "generator.width": 16}
    return {**chosen, "augment.start_images": start_images}


STACKED_TARGET = 0.31
"""2,000 perfect samples have 0.285 in expectation: half the mean of n ln n, for n of the Poisson distribution with mean
2, less ln 2. A model with 0.04 over 26,000 samples, of which 0.02 come from their number, has about 0.305."""
RUNGS = {
    "digits": Rung(
        "MNIST by class, 32x32", "mnist", "mnist", DIGIT_SCORE,
        target=5.0, cadence_images=10_000, limit_minutes=15.0, memory_gigabytes=2.0, is_conditional=True,
    ),
    "digits-unconditional": Rung(
        "MNIST without its labels, 32x32; clusters may take their place", "mnist", "mnist-clusters", DIGIT_SCORE,
        target=8.0, cadence_images=20_000, limit_minutes=30.0, memory_gigabytes=2.0, is_conditional=False,
    ),
    "stacked": Rung(
        "three digits as the colors of one image: 1,000 modes", STACKED_MNIST, STACKED_MNIST,
        "KL divergence of the modes from uniform, 2,000 samples (which alone add 0.28)",
        target=STACKED_TARGET, cadence_images=50_000, limit_minutes=60.0, memory_gigabytes=3.0,
    ),
    "icons-64": Rung(
        "3,786 emoji with transparency, 64x64", "icons", "images", IMAGE_SCORE,
        target=340.0, cadence_images=5_000, limit_minutes=90.0, memory_gigabytes=3.0,
        settings=SIDE_64, recipe_settings=late_augmentation(113_580),
    ),
    "avatars-64": Rung(
        "1,000 cartoon faces, 64x64", "avatars-1000-64", "images", IMAGE_SCORE,
        target=160.0, cadence_images=5_000, limit_minutes=60.0, memory_gigabytes=3.0,
        settings=SIDE_64, recipe_settings=late_augmentation(30_000),
    ),
    "avatars-128": Rung(
        "10,000 cartoon faces, 128x128", "avatars-10000-128", "images", IMAGE_SCORE,
        target=160.0, cadence_images=5_000, limit_minutes=180.0, memory_gigabytes=6.0,
        settings={"data.height": 128, "data.width": 128}, recipe_settings=late_augmentation(300_000),
    ),
}  # fmt: skip


def find_rung(name: str) -> Rung:
    """Return a rung by its name; raises CardiganError for an unknown one."""
    if name not in RUNGS:
        raise unknown("rung", name, RUNGS)
    return RUNGS[name]


def rung_settings(rung: Rung, recipe: str) -> dict[str, Any]:
    """Return the settings of a training on top of its recipe, by dotted name."""
    return {**rung.settings, **(rung.recipe_settings if recipe == rung.recipe else {})}


def check_recipe(rung: Rung, recipe: str) -> None:
    """Raise CardiganError for an unknown recipe, or one that is told other classes than the rung's results."""
    config = find_recipe(recipe).config()
    if rung.is_conditional is not None and (config.conditional and not config.data.clusters) != rung.is_conditional:
        kind = "class-conditional" if rung.is_conditional else "not told the classes"
        raise CardiganError(
            f"The recipe {recipe} {'is not' if rung.is_conditional else 'is'} class-conditional, and generators of "
            f"this rung are {kind} ({rung.purpose}): choose another recipe, or another rung (cardigan bench --list)."
        )


def rung_source(rung: Rung) -> str:
    """Return the source of a rung; raises CardiganError, with the command that makes it, for a set that is missing."""
    if rung.source in BUILTIN_SOURCES:
        return rung.source
    folder = cache_dir() / IMAGE_SETS_FOLDER / rung.source
    if not folder.exists():
        raise CardiganError(
            f"The image set {rung.source} was not found ({folder}): make it with `python benchmarks/image_sets.py "
            f"{rung.source}` in a clone of the repository, which needs npm and Node.js."
        )
    return str(folder)


def check_scorer(rung: Rung) -> None:
    """Raise CardiganError if the network that scores this rung's images is not installed."""
    if rung.source not in BUILTIN_SOURCES and not is_installed(EXAMINER):
        raise CardiganError(
            f"The score of this rung needs {EXAMINER}, which is not installed: pip install 'cardigan[features]'."
        )


def check_memory(rung: Rung) -> None:
    """Raise CardiganError if this machine has less free memory than a run of the rung takes."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 1e6
    except (OSError, StopIteration, ValueError):
        return  # not Linux
    if available < rung.memory_gigabytes:
        raise CardiganError(
            f"{available:.1f} GB of memory are free, and this rung takes about {rung.memory_gigabytes:g} GB: close "
            "other programs, or choose a smaller rung (cardigan bench --list)."
        )
