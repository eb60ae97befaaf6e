"""A small MNIST classifier with bundled weights, trained by `benchmarks/train_digit_classifier.py`.

It is used for evaluation only; GAN training never uses its gradients.
"""

from functools import cache
from importlib.resources import files

import torch
from jaxtyping import Float
from safetensors.torch import load
from torch import Tensor, nn

SIDE = 28
CHUNK_SIZE = 100


class DigitClassifier(nn.Module):
    """Five 3x3 convolutions, 128 features, ten classes, 177,322 parameters."""

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
def digit_classifier_tensors() -> dict[str, Tensor]:
    return load(files("cardigan.backbones").joinpath("digit_classifier.safetensors").read_bytes())


@cache
def digit_classifier() -> DigitClassifier:
    """Return the trained classifier in evaluation mode."""
    with torch.device("meta"):
        classifier = DigitClassifier()
    classifier.load_state_dict(
        {
            name.removeprefix("classifier."): value
            for name, value in digit_classifier_tensors().items()
            if name.startswith("classifier.")
        },
        assign=True,
    )
    return classifier.eval().requires_grad_(False)
