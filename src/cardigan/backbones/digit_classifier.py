"""The judge of digits: a small classifier of MNIST, its weights embedded (made by `benchmarks/train_digit_classifier.py`).

Knows grey 28x28 pictures and how to get there from other frames; knows no generator, and training never sees its gradients.
"""

from functools import cache
from importlib.resources import files

import torch
from jaxtyping import Float, Int64, UInt8
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn.functional import interpolate

from cardigan.config import DataConfig
from cardigan.metrics.frechet import Gaussian, fit_gaussian, frechet_distance
from cardigan.pixels import decode
from cardigan.shapes import Pixels

SIDE = 28
CHUNK_SIZE = 100


class DigitClassifier(nn.Module):
    """Five 3x3 convolutions, 128 features, ten classes; 177,322 parameters."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 32, 32, 64, 64, 64)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.embedding = nn.Linear(64 * 3 * 3, 128)
        self.fc = nn.Linear(128, 10)

    def flat_features(self, images: Float[Tensor, "batch 1 28 28"]) -> Float[Tensor, "batch 576"]:
        hidden = images
        for depth, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            hidden = torch.relu(norm(convolution(hidden)))
            if depth in (1, 3, 4):
                hidden = nn.functional.max_pool2d(hidden, 2)
        return hidden.flatten(1)

    def features(self, images: Float[Tensor, "batch 1 28 28"]) -> Float[Tensor, "batch 128"]:
        return torch.relu(self.embedding(self.flat_features(images)))

    def forward(self, images: Float[Tensor, "batch 1 28 28"]) -> Float[Tensor, "batch 10"]:
        return self.fc(self.features(images))


@cache
def _weights() -> dict[str, Tensor]:
    return load(files("cardigan.backbones").joinpath("digit_classifier.safetensors").read_bytes())


@cache
def digit_classifier() -> DigitClassifier:
    """Return the trained judge, in evaluation mode."""
    with torch.device("meta"):
        classifier = DigitClassifier()
    classifier.load_state_dict(
        {
            name.removeprefix("classifier."): value
            for name, value in _weights().items()
            if name.startswith("classifier.")
        },
        assign=True,
    )
    return classifier.eval().requires_grad_(False)


def digit_reference() -> Gaussian:
    """Return the distribution of the judge's features over the 10,000 test digits: the reference of every `fd_digits`."""
    return Gaussian(_weights()["reference.mean"], _weights()["reference.root"])


@torch.no_grad()
def digit_features(pixels: UInt8[Tensor, "batch 1 28 28"]) -> Float[Tensor, "batch 128"]:
    """Return the judge's features of grey 28x28 pictures."""
    return torch.cat([digit_classifier().features(decode(chunk)) for chunk in pixels.split(CHUNK_SIZE)])


def stacked_digit_features(pixels: UInt8[Tensor, "batch 3 28 28"]) -> Float[Tensor, "batch 384"]:
    """Return the judge's features of each channel as a digit of its own, side by side."""
    return torch.cat([digit_features(pixels[:, channel : channel + 1]) for channel in range(3)], dim=1)


def predict_digits(features: Float[Tensor, "batch 128"]) -> Int64[Tensor, " batch"]:
    """Return the class the judge sees in each row of features, 0..9."""
    return digit_classifier().fc(features).argmax(1)


def digit_frechet_distance(features: Float[Tensor, "batch 128"]) -> float:
    """Return the Frechet distance of these features to the test digits'; 5,000 training digits score about 1.5."""
    return frechet_distance(fit_gaussian(features), digit_reference())


def to_mnist_shape(pixels: Pixels, data: DataConfig) -> UInt8[Tensor, "batch 1 28 28"]:
    """Return generated pictures as grey 28x28: the inverse of the frame they were trained in (`data.source.to_training_shape`)."""
    gray = pixels.float().mean(1, keepdim=True)
    if data.resize == "pad" and min(pixels.shape[2:]) >= SIDE:
        top, left = (pixels.shape[2] - SIDE) // 2, (pixels.shape[3] - SIDE) // 2
        gray = gray[:, :, top : top + SIDE, left : left + SIDE]
    elif gray.shape[2:] != (SIDE, SIDE):
        gray = interpolate(gray, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
    return gray.round().clamp(0, 255).to(torch.uint8)
