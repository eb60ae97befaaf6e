"""Features, classes and Frechet distances of digits, from the bundled digit classifier."""

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from cardigan.backbones.digit_classifier import CHUNK_SIZE, SIDE, digit_classifier, digit_classifier_tensors
from cardigan.config_parts import DataConfig
from cardigan.metrics.frechet import Gaussian, fit_gaussian, frechet_distance
from cardigan.pixels import decode
from cardigan.shapes import Pixels


def digit_reference() -> Gaussian:
    """Return the Gaussian of the classifier's features over the 10,000 test digits, the reference of `fd_digits`."""
    return Gaussian(digit_classifier_tensors()["reference.mean"], digit_classifier_tensors()["reference.root"])


@torch.no_grad()
def digit_features(pixels: UInt8[Tensor, "batch 1 28 28"]) -> Float[Tensor, "batch 128"]:
    """Return the classifier's features of gray 28x28 images."""
    return torch.cat([digit_classifier().features(decode(chunk)) for chunk in pixels.split(CHUNK_SIZE)])


def stacked_digit_features(pixels: UInt8[Tensor, "batch 3 28 28"]) -> Float[Tensor, "batch 384"]:
    """Return the classifier's features of each channel, concatenated."""
    return torch.cat([digit_features(pixels[:, channel : channel + 1]) for channel in range(3)], dim=1)


def predict_digits(features: Float[Tensor, "batch 128"]) -> Int64[Tensor, " batch"]:
    """Return the predicted class of each row of features, 0..9."""
    return digit_classifier().fc(features).argmax(1)


def digit_frechet_distance(features: Float[Tensor, "batch 128"]) -> float:
    """Return the Frechet distance to the test digits. 5,000 training digits score about 1.5."""
    return frechet_distance(fit_gaussian(features), digit_reference())


def to_mnist_shape(pixels: Pixels, data: DataConfig) -> UInt8[Tensor, "batch 1 28 28"]:
    """Return generated images as gray 28x28, the inverse of `data.resize.to_training_shape`."""
    gray = pixels.float().mean(1, keepdim=True)
    if data.resize == "pad" and min(pixels.shape[2:]) >= SIDE:
        top, left = (pixels.shape[2] - SIDE) // 2, (pixels.shape[3] - SIDE) // 2
        gray = gray[:, :, top : top + SIDE, left : left + SIDE]
    elif gray.shape[2:] != (SIDE, SIDE):
        gray = interpolate(gray, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
    return gray.round().clamp(0, 255).to(torch.uint8)
