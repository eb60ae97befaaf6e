"""DCGAN (Radford, Metz, Chintala 2015, arXiv:1511.06434) at any size of at least 8x8, square or not, with or without classes.

A picture is halved down to sides of 4 to 7, or as often as `depth` says.

At 64x64 and width 128, with `batch-shift` normalisation, it is the network of the MXNet tutorial. Knows nothing of losses or training.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from cardigan.config import NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.nets.convolution import Convolution, TransposedConvolution
from cardigan.nets.interface import Discriminator, Generator
from cardigan.nets.parts import (
    LatentWithClass,
    Projection,
    class_rows,
    initialise,
    normalisation,
    stages,
    widths,
    with_minibatch_deviation,
)
from cardigan.nets.spectral import normalise_spectrally
from cardigan.shapes import Images, Labels, Latents, Logits


class DcganGenerator(Generator):
    """Transposed convolutions from one point to the picture, ReLU between them, tanh at the end."""

    def __init__(self, config: NetworkConfig, latent_size: int, spec: ImageSpec) -> None:
        super().__init__()
        steps = stages(spec.height, spec.width, config.depth, "generator")[::-1]
        channels = widths(config.width, len(steps))[::-1]
        bias = config.normalisation == "none"
        self.latent = LatentWithClass(latent_size, spec.classes, learned=config.conditioning != "one-hot")
        self.start = TransposedConvolution(self.latent.size, channels[0], steps[0].small, bias=bias)
        self.doublings = nn.ModuleList(
            TransposedConvolution(wide, narrow, step.kernel, step.stride, 1, step.remainder, bias=bias)
            for wide, narrow, step in zip(channels, [*channels[1:], spec.channels], steps, strict=True)
        )
        self.norms = nn.ModuleList(normalisation(config.normalisation, count) for count in channels)
        initialise(self, config.initialisation)
        if config.spectral:
            normalise_spectrally(self)

    def forward(self, z: Latents, labels: Labels | None = None) -> Images:
        hidden = self.start(self.latent(z, labels)[:, :, None, None])
        for norm, doubling in zip(self.norms, self.doublings, strict=True):
            hidden = doubling(torch.relu(norm(hidden)))
        return torch.tanh(hidden)


class DcganDiscriminator(Discriminator):
    """Strided convolutions from the picture to one number, LeakyReLU(0.2) between them, normalised from the second on.

    With `projection`, the last features, summed over the picture, are also asked how well they suit the class.
    """

    def __init__(self, config: NetworkConfig, spec: ImageSpec) -> None:
        super().__init__()
        steps = stages(spec.height, spec.width, config.depth, "discriminator")
        channels = widths(config.width, len(steps))
        bias = config.normalisation == "none"
        learned = config.conditioning != "one-hot"
        self.planes = 0 if learned else spec.classes
        self.group = config.minibatch_deviation
        self.halvings = nn.ModuleList(
            Convolution(narrow, wide, step.kernel, step.stride, padding=1, bias=bias)
            for narrow, wide, step in zip([spec.channels + self.planes, *channels], channels, steps, strict=False)
        )
        self.norms = nn.ModuleList(normalisation(config.normalisation if depth else "none", count) for depth, count in enumerate(channels))
        self.verdict = Convolution(channels[-1] + (self.group > 0), 1, steps[-1].small, bias=bias)
        self.projection = Projection(channels[-1], spec.classes) if learned and spec.classes else None
        initialise(self, config.initialisation)
        if config.spectral:
            normalise_spectrally(self)

    def forward(self, images: Images, labels: Labels | None = None) -> Logits:
        hidden = self._with_class_planes(images, labels) if self.planes else images
        for norm, halving in zip(self.norms, self.halvings, strict=True):
            hidden = leaky_relu(norm(halving(hidden)), 0.2)
        logits = self.verdict(with_minibatch_deviation(hidden, self.group)).flatten().float()
        return logits + self.projection(hidden.float().sum(dim=(2, 3)), labels) if self.projection else logits

    def _with_class_planes(self, images: Images, labels: Labels | None) -> Float[Tensor, "batch planes height width"]:
        """Append one plane per class, 1 everywhere in the picture's own class and 0 in the others (the paper's MNIST protocol)."""
        planes = class_rows(labels, self.planes).to(images.dtype)[:, :, None, None]
        return torch.cat([images, planes.expand(-1, -1, *images.shape[2:])], dim=1)
