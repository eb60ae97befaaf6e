"""Residual networks of SNGAN (Miyato et al. 2018, arXiv:1802.05957, appendix B.4), with the self-attention of SAGAN where it is asked for.

Any size of at least 8x8, square or not. Classes are told to G by conditional batch normalisation, or by an embedding beside z where there is
no batch normalisation, and to D by projection (arXiv:1802.05637). Knows nothing of losses or training.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, embedding, interpolate

from cardigan.config import NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.nets.attention import SelfAttention, attended_size
from cardigan.nets.convolution import Convolution
from cardigan.nets.interface import Discriminator, Generator
from cardigan.nets.parts import LatentWithClass, Verdict, initialise, normalisation, stages, told, widths, with_minibatch_deviation
from cardigan.nets.spectral import normalise_spectrally
from cardigan.shapes import Images, Labels, Latents, Logits

Before: TypeAlias = Float[Tensor, "batch channel height width"]
After: TypeAlias = Float[Tensor, "batch new_channel new_height new_width"]
Layer = TypeVar("Layer", Convolution, nn.Linear)

DEPTH = 1
"""Residual blocks at each size, where no number is asked for."""
RESIDUAL, DIRECT = 2**0.5, 1.0
"""Gains of Glorot's initialisation on a residual branch and off it."""


class ResnetGenerator(Generator):
    """A linear map of z to the smallest size, blocks that double it, normalisation, ReLU, a convolution and tanh."""

    def __init__(self, config: NetworkConfig, latent_size: int, spec: ImageSpec) -> None:
        super().__init__()
        steps, depth = stages(spec.height, spec.width)[::-1], config.depth or DEPTH
        channels = widths(config.width, len(steps))[::-1]
        attended = attended_size(config.attention, [step.large for step in steps], "generator")
        told_by_norms = config.normalisation == "batch"
        norm = partial(ClassNorm, config.normalisation, spec.classes if told_by_norms else 0)
        self.latent = LatentWithClass(latent_size, 0 if told_by_norms else spec.classes, learned=True)
        self.smallest = (channels[0], *steps[0].small)
        self.start = glorot(nn.Linear(self.latent.size, channels[0] * steps[0].small[0] * steps[0].small[1]), DIRECT)
        self.sizes = nn.ModuleList(
            GeneratorSize(wide, narrow, step.large, depth, norm, attends=step.large == attended)
            for wide, narrow, step in zip([channels[0], *channels], channels, steps, strict=False)
        )
        self.norm = normalisation(config.normalisation, channels[-1])
        self.draw = glorot(Convolution(channels[-1], spec.channels, 3, padding=1), DIRECT)
        initialise(self, config.initialisation)
        if config.spectral:
            normalise_spectrally(self)

    def forward(self, z: Latents, labels: Labels | None = None) -> Images:
        hidden = self.start(self.latent(z, labels)).unflatten(1, self.smallest)
        for size in self.sizes:
            hidden = size(hidden, labels)
        return torch.tanh(self.draw(torch.relu(self.norm(hidden))))


class ResnetDiscriminator(Discriminator):
    """Blocks that halve the picture and one that keeps it, ReLU, the sum over the picture, a verdict."""

    def __init__(self, config: NetworkConfig, spec: ImageSpec) -> None:
        super().__init__()
        steps, depth = stages(spec.height, spec.width), config.depth or DEPTH
        channels = widths(config.width, len(steps))
        attended = attended_size(config.attention, [step.small for step in steps], "discriminator")
        layers: list[nn.Module] = []
        for narrow, wide, step in zip([spec.channels, *channels], channels, steps, strict=False):
            layers.append(DiscriminatorBlock(narrow, wide, step.stride, first=not layers))
            layers += [DiscriminatorBlock(wide, wide) for _ in range(1, depth)]
            layers += [SelfAttention(wide)] if step.small == attended else []
        self.group = config.minibatch_deviation
        self.layers = nn.Sequential(*layers, DiscriminatorBlock(channels[-1], channels[-1]))
        self.verdict = Verdict(channels[-1] + (self.group > 0), spec.classes)
        initialise(self, config.initialisation)
        if config.spectral:
            normalise_spectrally(self)

    def forward(self, images: Images, labels: Labels | None = None) -> Logits:
        hidden = torch.relu(self.layers(images))
        return self.verdict(with_minibatch_deviation(hidden, self.group).float().sum(dim=(2, 3)), labels)


class GeneratorSize(nn.Module):
    """What G does at one size: a block that doubles the maps up to it, more that keep it, and attention if it has any."""

    def __init__(self, wide: int, narrow: int, size: tuple[int, int], depth: int, norm: Callable[[int], nn.Module], attends: bool) -> None:
        super().__init__()
        keeping = [GeneratorBlock(narrow, narrow, None, norm) for _ in range(1, depth)]
        self.blocks = nn.ModuleList([GeneratorBlock(wide, narrow, size, norm), *keeping])
        self.attention = SelfAttention(narrow) if attends else nn.Identity()

    def forward(self, x: Before, labels: Labels | None) -> After:
        for block in self.blocks:
            x = block(x, labels)
        return self.attention(x)


class GeneratorBlock(nn.Module):
    """Twice normalisation, ReLU and a 3x3 convolution, with nearest-neighbour doubling to `size` before the first; and a way beside them."""

    def __init__(self, wide: int, narrow: int, size: tuple[int, int] | None, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.size = size
        self.norms = nn.ModuleList([norm(wide), norm(narrow)])
        self.first, self.second = residual_convolution(wide, narrow), residual_convolution(narrow, narrow)
        self.beside = beside(wide, narrow, resized=size is not None)

    def forward(self, x: Before, labels: Labels | None) -> After:
        hidden = self.first(self._doubled(torch.relu(self.norms[0](x, labels))))
        hidden = self.second(torch.relu(self.norms[1](hidden, labels)))
        return self._doubled(self.beside(x)) + hidden

    def _doubled(self, x: Before) -> After:
        return interpolate(x, size=self.size, mode="nearest") if self.size else x


class DiscriminatorBlock(nn.Module):
    """Twice ReLU and a 3x3 convolution, averaged over `stride` at the end if it halves; and a way beside them. D's first has no first ReLU."""

    def __init__(self, narrow: int, wide: int, stride: tuple[int, int] | None = None, first: bool = False) -> None:
        super().__init__()
        self.stride, self.begins = stride, first
        hidden = wide if first else narrow
        self.first, self.second = residual_convolution(narrow, hidden), residual_convolution(hidden, wide)
        self.beside = beside(narrow, wide, resized=stride is not None)

    def forward(self, x: Before) -> After:
        hidden = self.second(torch.relu(self.first(x if self.begins else torch.relu(x))))
        return self.beside(self._halved(x)) + self._halved(hidden)

    def _halved(self, x: Before) -> After:
        return avg_pool2d(x, self.stride) if self.stride else x


class ClassNorm(nn.Module):
    """Normalisation, and with classes a scale and shift for each (arXiv:1610.07629, section 2.2): common ones and its own deviations, at first 0."""

    def __init__(self, kind: Literal["none", "batch", "batch-shift"], classes: int, channels: int) -> None:
        super().__init__()
        self.norm = normalisation(kind, channels)
        self.scales, self.shifts = (nn.Parameter(torch.zeros(classes, channels)) if classes else None for _ in range(2))

    def forward(self, x: Before, labels: Labels | None) -> Before:
        x = self.norm(x)
        if self.scales is None or self.shifts is None:
            return x
        scale, shift = (embedding(told(labels), table)[:, :, None, None].to(x.dtype) for table in (self.scales, self.shifts))
        return x + x * scale + shift


def residual_convolution(inputs: int, outputs: int) -> Convolution:
    return glorot(Convolution(inputs, outputs, 3, padding=1), RESIDUAL)


def beside(inputs: int, outputs: int, resized: bool) -> nn.Module:
    """Return what goes around a residual branch: a 1x1 convolution where the size or the number of channels changes, else nothing."""
    return glorot(Convolution(inputs, outputs, 1), DIRECT) if resized or inputs != outputs else nn.Identity()


def glorot(layer: Layer, gain: float) -> Layer:
    """Draw a layer's weights as Glorot and Bengio (2010, eq. 16), times a gain; its biases begin at 0."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
