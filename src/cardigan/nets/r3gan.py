"""R3GAN (Huang et al. 2024, arXiv:2501.05441, section 4 and the appendix): residual networks of grouped convolutions without normalisation.

Any size of at least 8x8, square or not. Classes are told to G by an embedding beside z and to D by projection (arXiv:1802.05637).
Knows nothing of losses or training.
"""

from itertools import pairwise
from typing import TypeAlias, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, leaky_relu

from cardigan.config import NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.nets.convolution import Convolution
from cardigan.nets.interface import Discriminator, Generator
from cardigan.nets.parts import LatentWithClass, Stage, Verdict, stages, widths, with_minibatch_deviation
from cardigan.shapes import Images, Labels, Latents, Logits

Maps: TypeAlias = Float[Tensor, "batch channel height width"]
Resized: TypeAlias = Float[Tensor, "batch channel new_height new_width"]

Layer = TypeVar("Layer", Convolution, nn.Linear)

DEPTH = 2
"""Residual blocks at each size, where no number is asked for."""
EXPANSION = 2
"""The middle of a block has this many times its channels: an inverted bottleneck."""
GROUP_WIDTH = 16
"""Channels of a group in the middle convolution, at most."""
SLOPE = 0.2
GAIN = (2 / (1 + SLOPE**2)) ** 0.5
"""What LeakyReLU takes from the size of its input, on average (arXiv:1502.01852, eq. 15)."""


class R3ganGenerator(Generator):
    """A learned smallest map, each channel times a linear function of z; blocks at every size, doubling between them; a 1x1 convolution.

    Nothing bounds what is drawn, as in the paper: pictures are clipped to [-1, 1] when they are encoded.
    """

    def __init__(self, config: NetworkConfig, latent_size: int, spec: ImageSpec) -> None:
        super().__init__()
        steps, depth = stages(spec.height, spec.width)[::-1], config.depth or DEPTH
        channels = widths(config.width, len(steps) + 1)[::-1]
        num_blocks = depth * len(channels)
        self.latent = LatentWithClass(latent_size, spec.classes, learned=True)
        self.basis = nn.Parameter(torch.randn(channels[0], *steps[0].small))
        self.modulation = scaled(nn.Linear(self.latent.size, channels[0], bias=False), 1.0)
        self.blocks = nn.ModuleList(blocks(count, depth, num_blocks) for count in channels)
        self.doublings = nn.ModuleList(Doubling(wide, narrow, step) for (wide, narrow), step in zip(pairwise(channels), steps, strict=True))
        self.draw = scaled(Convolution(channels[-1], spec.channels, 1), 1.0)

    def forward(self, z: Latents, labels: Labels | None = None) -> Images:
        hidden = self.blocks[0](self.basis * self.modulation(self.latent(z, labels))[:, :, None, None])
        for doubling, kept in zip(self.doublings, self.blocks[1:], strict=True):
            hidden = kept(doubling(hidden))
        return self.draw(hidden)


class R3ganDiscriminator(Discriminator):
    """A 1x1 convolution, blocks at every size, halving between them; each channel's product with a learned map, a verdict."""

    def __init__(self, config: NetworkConfig, spec: ImageSpec) -> None:
        super().__init__()
        steps, depth = stages(spec.height, spec.width), config.depth or DEPTH
        channels = widths(config.width, len(steps) + 1)
        num_blocks = depth * len(channels)
        self.group = config.minibatch_deviation
        self.look = scaled(Convolution(spec.channels, channels[0], 1), 1.0)
        self.blocks = nn.ModuleList(blocks(count, depth, num_blocks) for count in channels)
        self.halvings = nn.ModuleList(Halving(narrow, wide, step) for (narrow, wide), step in zip(pairwise(channels), steps, strict=True))
        num_features = channels[-1] + (self.group > 0)
        height, width = steps[-1].small
        self.basis = nn.Parameter(torch.randn(num_features, height, width) * (height * width) ** -0.5)
        self.verdict = Verdict(num_features, spec.classes)

    def forward(self, images: Images, labels: Labels | None = None) -> Logits:
        hidden = self.blocks[0](self.look(images))
        for halving, kept in zip(self.halvings, self.blocks[1:], strict=True):
            hidden = kept(halving(hidden))
        hidden = with_minibatch_deviation(hidden, self.group)
        return self.verdict(torch.einsum("bchw,chw->bc", hidden, self.basis), labels)


class ResidualBlock(nn.Module):
    """1x1 to twice the channels, a grouped 3x3, 1x1 back, LeakyReLU between them, added to the input.

    Begins as the identity, its branch scaled for the depth of the network (fix-up, arXiv:1901.09321, section 3: m = 3 layers in a branch).
    """

    def __init__(self, channels: int, num_blocks: int) -> None:
        super().__init__()
        middle = EXPANSION * channels
        scale = num_blocks ** (-1 / (2 * 3 - 2))
        self.widen = scaled(Convolution(channels, middle, 1), GAIN * scale)
        self.mix = scaled(Convolution(middle, middle, 3, padding=1, groups=middle // group_width(middle)), GAIN * scale)
        self.narrow = scaled(Convolution(middle, channels, 1, bias=False), 0.0)

    def forward(self, x: Maps) -> Maps:
        hidden = leaky_relu(self.mix(leaky_relu(self.widen(x), SLOPE)), SLOPE)
        return x + self.narrow(hidden)


class Doubling(nn.Module):
    """A 1x1 convolution where the number of channels changes, then bilinear interpolation up to the step's large size."""

    def __init__(self, wide: int, narrow: int, step: Stage) -> None:
        super().__init__()
        self.step = step
        self.channels = transition(wide, narrow)

    def forward(self, x: Maps) -> Float[Tensor, "batch new_channel new_height new_width"]:
        return doubled(self.channels(x), self.step)


class Halving(nn.Module):
    """A low-pass filter and every second pixel, then a 1x1 convolution where the number of channels changes."""

    def __init__(self, narrow: int, wide: int, step: Stage) -> None:
        super().__init__()
        self.step = step
        self.channels = transition(narrow, wide)

    def forward(self, x: Maps) -> Float[Tensor, "batch new_channel new_height new_width"]:
        return self.channels(halved(x, self.step))


def doubled(x: Maps, step: Stage) -> Resized:
    """Return the maps at the step's large size: nearest-neighbour, then blurred, which is bilinear interpolation where a side is exactly doubled.

    PyTorch's own bilinear interpolation adds up its gradient in another order each time on a GPU; a run could not be resumed to the same bits.
    """
    return blurred(interpolate(x, size=step.large, mode="nearest"), step)


def halved(x: Maps, step: Stage) -> Resized:
    """Return the maps at the step's small size: blurred, then averaged over pairs, which together is the filter [1, 3, 3, 1] / 8."""
    return avg_pool2d(blurred(x, step), step.stride)


def blurred(x: Maps, step: Stage) -> Maps:
    """Return the maps under the filter [1, 2, 1] / 4 along the axes that the step halves; at its ends a row is its own neighbour."""
    for axis in (axis for axis, stride in zip((2, 3), step.stride, strict=True) if stride == 2):
        last = x.shape[axis] - 1
        before = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, last)], dim=axis)
        after = torch.cat([x.narrow(axis, 1, last), x.narrow(axis, last, 1)], dim=axis)
        x = x * 0.5 + (before + after) * 0.25
    return x


def blocks(channels: int, depth: int, num_blocks: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels, num_blocks) for _ in range(depth)))


def transition(inputs: int, outputs: int) -> nn.Module:
    return nn.Identity() if inputs == outputs else scaled(Convolution(inputs, outputs, 1, bias=False), 1.0)


def group_width(channels: int) -> int:
    """Return the largest divisor of `channels` up to GROUP_WIDTH."""
    return max(width for width in range(1, GROUP_WIDTH + 1) if channels % width == 0)


def scaled(layer: Layer, gain: float) -> Layer:
    """Draw a layer's weights from Normal(0, gain^2 / fan-in), which for a gain of 0 are zeros; its biases begin at 0."""
    nn.init.normal_(layer.weight, std=gain * layer.weight[0].numel() ** -0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
