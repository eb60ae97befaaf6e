"""Frozen networks that a projected discriminator learns from, by name or from a file."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from cardigan.backbones.dinov2 import Dinov2Taps, build_dinov2
from cardigan.backbones.efficientnet import EXAMINER, VARIANTS, FoldedTaps, efficientnet
from cardigan.backbones.weights import load_weights
from cardigan.errors import CardiganError, unknown

BACKBONES: dict[str, Callable[[], nn.Module]] = {
    name: lambda name=name: FoldedTaps(efficientnet(name)) for name in VARIANTS if name != EXAMINER
}
"""Functions that return a module from RGB images in [-1, 1] to a list of feature maps, finest first."""
WEIGHTS_SUFFIX = ".safetensors"
"""A backbone with this suffix is a file with the weights of a DINOv2 network."""


def find_backbone(name: str) -> nn.Module:
    """Return a backbone, or DINOv2 with the weights of a file.

    Raises CardiganError for an unknown name, the examiner, weights that are not installed, or a wrong file.
    """
    if name == EXAMINER:
        raise CardiganError(
            f"discriminator.options.backbone is {name!r}, which scores the images: a discriminator that learns from it "
            f"would be scored too well. Choose {' or '.join(BACKBONES)}."
        )
    if name.endswith(WEIGHTS_SUFFIX):
        path = Path(name)
        return Dinov2Taps(build_dinov2(load_weights(path, "discriminator.options.backbone"), path))
    if name not in BACKBONES:
        raise unknown("backbone", name, BACKBONES)
    return BACKBONES[name]()


def shares_features(backbone: str, extractor: str) -> bool:
    """Return whether this extractor has the features of the backbone, or of its family."""
    return extractor.split(" ", maxsplit=1)[0] == ("dinov2" if backbone.endswith(WEIGHTS_SUFFIX) else backbone)
