"""DCGAN (Radford, Metz, Chintala 2015, arXiv:1511.06434) at any size of at least 8x8, square or not, with or without classes.

At 64x64 and width 128, with `batch-shift` normalisation, it is the network of the MXNet tutorial. Knows nothing of losses or training.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, one_hot

from cardigan.config import NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.nets.convolution import Convolution, Deconvolution
from cardigan.nets.interface import Discriminator, Generator
from cardigan.shapes import Images, Labels, Latents, Logits

EPS = 1e-5 + 1e-12
"""The tutorial's batch-normalisation epsilon."""


@dataclass(frozen=True)
class Stage:
    """One halving of the picture, seen from the discriminator: from `large` to `small`, (height, width) each."""

    large: tuple[int, int]
    small: tuple[int, int]

    @property
    def kernel(self) -> tuple[int, int]:
        """4 along an axis that is halved, 3 along one that is kept."""
        return self._per_axis(halved=4, kept=3)

    @property
    def stride(self) -> tuple[int, int]:
        return self._per_axis(halved=2, kept=1)

    @property
    def remainder(self) -> tuple[int, int]:
        """1 along an axis whose large side is odd: the row that halving loses and doubling has to add."""
        return (self.large[0] - self.small[0] * self.stride[0], self.large[1] - self.small[1] * self.stride[1])

    def _per_axis(self, halved: int, kept: int) -> tuple[int, int]:
        height, width = (halved if small != large else kept for small, large in zip(self.small, self.large, strict=True))
        return (height, width)


def stages(height: int, width: int) -> list[Stage]:
    """Return the halvings from the full picture down to sides of 4..7; an axis that has arrived waits for the other."""

    def sizes() -> Iterator[tuple[int, int]]:
        sides = (height, width)
        yield sides
        while max(sides) >= 8:
            sides = (sides[0] // 2 if sides[0] >= 8 else sides[0], sides[1] // 2 if sides[1] >= 8 else sides[1])
            yield sides

    chain = list(sizes())
    return [Stage(large, small) for large, small in zip(chain, chain[1:], strict=False)]


def widths(width: int, num_stages: int) -> list[int]:
    """Return the channels after each halving: doubled each time, at most eight times the first."""
    return [width * min(2**stage, 8) for stage in range(num_stages)]


def normalisation(kind: Literal["none", "batch", "batch-shift"], channels: int) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    norm = nn.BatchNorm2d(channels, eps=EPS)
    if kind == "batch-shift":
        norm.weight.requires_grad_(False)
    return norm


def initialise(network: nn.Module, kind: Literal["dcgan", "torch"]) -> None:
    """Draw the starting weights: `dcgan` is Normal(0, 0.02) for every convolution; `torch` leaves PyTorch's own."""
    for module in network.modules():
        if kind == "dcgan" and isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def class_rows(labels: Labels | None, classes: int) -> Float[Tensor, "batch classes"]:
    """Return 1 in each row's own class and 0 elsewhere."""
    assert labels is not None, "a network built for classes was called without labels"
    return one_hot(labels, classes).float()


class DcganGenerator(Generator):
    """Deconvolutions from one point to the picture, ReLU between them, tanh at the end."""

    def __init__(self, config: NetworkConfig, latent_size: int, spec: ImageSpec) -> None:
        super().__init__()
        steps = stages(spec.height, spec.width)[::-1]
        channels = widths(config.width, len(steps))[::-1]
        bias = config.normalisation == "none"
        self.classes = spec.classes
        self.start = Deconvolution(latent_size + spec.classes, channels[0], steps[0].small, bias=bias)
        self.doublings = nn.ModuleList(
            Deconvolution(wide, narrow, step.kernel, step.stride, padding=1, output_padding=step.remainder, bias=bias)
            for wide, narrow, step in zip(channels, [*channels[1:], spec.channels], steps, strict=True)
        )
        self.norms = nn.ModuleList(normalisation(config.normalisation, count) for count in channels)
        initialise(self, config.initialisation)

    def forward(self, z: Latents, labels: Labels | None = None) -> Images:
        if self.classes:
            z = torch.cat([z, class_rows(labels, self.classes).to(z.dtype)], dim=1)
        hidden = self.start(z[:, :, None, None])
        for norm, doubling in zip(self.norms, self.doublings, strict=True):
            hidden = doubling(torch.relu(norm(hidden)))
        return torch.tanh(hidden)


class DcganDiscriminator(Discriminator):
    """Strided convolutions from the picture to one number, LeakyReLU(0.2) between them, normalised from the second on."""

    def __init__(self, config: NetworkConfig, spec: ImageSpec) -> None:
        super().__init__()
        steps = stages(spec.height, spec.width)
        channels = widths(config.width, len(steps))
        bias = config.normalisation == "none"
        self.classes = spec.classes
        self.halvings = nn.ModuleList(
            Convolution(narrow, wide, step.kernel, step.stride, padding=1, bias=bias)
            for narrow, wide, step in zip([spec.channels + spec.classes, *channels], channels, steps, strict=False)
        )
        self.norms = nn.ModuleList(normalisation(config.normalisation if depth else "none", count) for depth, count in enumerate(channels))
        self.verdict = Convolution(channels[-1], 1, steps[-1].small, bias=bias)
        initialise(self, config.initialisation)

    def forward(self, images: Images, labels: Labels | None = None) -> Logits:
        hidden = self._with_class_planes(images, labels) if self.classes else images
        for norm, halving in zip(self.norms, self.halvings, strict=True):
            hidden = leaky_relu(norm(halving(hidden)), 0.2)
        return self.verdict(hidden).flatten().float()

    def _with_class_planes(self, images: Images, labels: Labels | None) -> Float[Tensor, "batch planes height width"]:
        """Append one plane per class, 1 everywhere in the picture's own class and 0 in the others (the paper's MNIST protocol)."""
        planes = class_rows(labels, self.classes).to(images.dtype)[:, :, None, None]
        return torch.cat([images, planes.expand(-1, -1, *images.shape[2:])], dim=1)
