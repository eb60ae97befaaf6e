"""R3GAN (Huang et al. 2024, arXiv:2501.05441, section 4 and appendix): residual grouped convolutions, no normalization.

Images have any size of at least 8x8, square or not. Labels enter G as an embedding concatenated to z, and D as a
projection (arXiv:1802.05637). Knows nothing of losses or training.
"""

from itertools import pairwise
from typing import TypeAlias, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, leaky_relu

from cardigan.config_parts import NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.nets.conditioning import ConditionalLatent, Head
from cardigan.nets.convolution import FastConv2d
from cardigan.nets.interface import Discriminator, Generator
from cardigan.nets.minibatch_stddev import append_minibatch_stddev
from cardigan.nets.stages import Stage, channels_per_stage, stages
from cardigan.shapes import ClassWeights, Images, Labels, Latents, Logits

FeatureMaps: TypeAlias = Float[Tensor, "batch channel height width"]
ResizedMaps: TypeAlias = Float[Tensor, "batch channel new_height new_width"]

Layer = TypeVar("Layer", FastConv2d, nn.Linear)

DEFAULT_DEPTH = 2
"""Residual blocks at each size, unless the config sets a depth."""
EXPANSION = 2
"""Factor by which a block widens its channels inside (inverted bottleneck)."""
MAX_GROUP_WIDTH = 16
"""Maximum channels per group of the middle convolution."""
NEGATIVE_SLOPE = 0.2
LEAKY_RELU_GAIN = (2 / (1 + NEGATIVE_SLOPE**2)) ** 0.5
"""The gain that compensates for LeakyReLU's effect on the variance (arXiv:1502.01852, eq. 15)."""


class R3ganGenerator(Generator):
    """A learned map modulated by z, residual blocks at every size with upsampling between them, and a 1x1 convolution.

    Each channel of the learned map is multiplied by a linear function of z. As in the paper, the output is not bounded:
    `pixels.encode` clips images to [-1, 1].
    """

    feature_modules = "blocks"
    accepts_class_weights = True
    latent_layer, image_layers, stage_lists = "modulation", ("to_image",), {"blocks": 0, "upsample_layers": 1}

    def __init__(self, config: NetworkConfig, latent_size: int, spec: ImageSpec) -> None:
        super().__init__()
        levels, depth = stages(spec.height, spec.width)[::-1], config.depth or DEFAULT_DEPTH
        channels = channels_per_stage(config.width, len(levels) + 1)[::-1]
        num_blocks = depth * len(channels)
        self.latent = ConditionalLatent(latent_size, spec.num_classes, learned_embedding=True)
        self.basis = nn.Parameter(torch.randn(channels[0], *levels[0].small_size))
        self.modulation = initialize_scaled(nn.Linear(self.latent.out_features, channels[0], bias=False), 1.0)
        self.blocks = nn.ModuleList(residual_blocks(count, depth, num_blocks) for count in channels)
        self.upsample_layers = nn.ModuleList(
            UpsampleLayer(wide, narrow, step) for (wide, narrow), step in zip(pairwise(channels), levels, strict=True)
        )
        self.to_image = initialize_scaled(FastConv2d(channels[-1], spec.channels, 1), 1.0)

    def stage_of(self, name: str) -> int | None:
        return 0 if name == "basis" else super().stage_of(name)

    def forward(self, z: Latents, labels: Labels | ClassWeights | None = None) -> Images:
        hidden = self.blocks[0](self.basis * self.modulation(self.latent(z, labels))[:, :, None, None])
        for upsample_layer, stage_blocks in zip(self.upsample_layers, self.blocks[1:], strict=True):
            hidden = stage_blocks(upsample_layer(hidden))
        return self.to_image(hidden)


class R3ganDiscriminator(Discriminator):
    """A 1x1 convolution, residual blocks at every size with downsampling between them, and a head.

    The head reads each channel's inner product with a learned map.
    """

    feature_modules = "blocks"
    image_layers, stage_lists = ("from_image",), ("blocks", "downsample_layers")

    def __init__(self, config: NetworkConfig, spec: ImageSpec) -> None:
        super().__init__()
        levels, depth = stages(spec.height, spec.width), config.depth or DEFAULT_DEPTH
        channels = channels_per_stage(config.width, len(levels) + 1)
        num_blocks = depth * len(channels)
        self.stddev_group_size = config.minibatch_stddev
        self.from_image = initialize_scaled(FastConv2d(spec.channels, channels[0], 1), 1.0)
        self.blocks = nn.ModuleList(residual_blocks(count, depth, num_blocks) for count in channels)
        self.downsample_layers = nn.ModuleList(
            DownsampleLayer(narrow, wide, step) for (narrow, wide), step in zip(pairwise(channels), levels, strict=True)
        )
        num_features = channels[-1] + (self.stddev_group_size > 0)
        height, width = levels[-1].small_size
        self.basis = nn.Parameter(torch.randn(num_features, height, width) * (height * width) ** -0.5)
        self.head = Head(num_features, spec.num_classes)

    def forward(self, images: Images, labels: Labels | None = None) -> Logits:
        hidden = self.blocks[0](self.from_image(images))
        for downsample_layer, stage_blocks in zip(self.downsample_layers, self.blocks[1:], strict=True):
            hidden = stage_blocks(downsample_layer(hidden))
        hidden = append_minibatch_stddev(hidden, self.stddev_group_size)
        return self.head(torch.einsum("bchw,chw->bc", hidden, self.basis), labels)


class ResidualBlock(nn.Module):
    """A 1x1 convolution to twice the channels, a grouped 3x3 and a 1x1 back, with LeakyReLU between them and a skip.

    The block starts as the identity. Its branch is scaled by the network's depth (fix-up initialization,
    arXiv:1901.09321, section 3, with m = 3 layers per branch).
    """

    def __init__(self, channels: int, num_blocks: int) -> None:
        super().__init__()
        middle = EXPANSION * channels
        scale = num_blocks ** (-1 / (2 * 3 - 2))
        self.expand = initialize_scaled(FastConv2d(channels, middle, 1), LEAKY_RELU_GAIN * scale)
        self.grouped = initialize_scaled(
            FastConv2d(middle, middle, 3, padding=1, groups=middle // group_width(middle)), LEAKY_RELU_GAIN * scale
        )
        self.project = initialize_scaled(FastConv2d(middle, channels, 1, bias=False), 0.0)

    def forward(self, x: FeatureMaps) -> FeatureMaps:
        hidden = leaky_relu(self.grouped(leaky_relu(self.expand(x), NEGATIVE_SLOPE)), NEGATIVE_SLOPE)
        return x + self.project(hidden)


class UpsampleLayer(nn.Module):
    """A 1x1 convolution if the number of channels changes, then bilinear interpolation to the stage's large size."""

    def __init__(self, wide_channels: int, narrow_channels: int, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        self.transition = channel_transition(wide_channels, narrow_channels)

    def forward(self, x: FeatureMaps) -> Float[Tensor, "batch new_channel new_height new_width"]:
        return upsample(self.transition(x), self.stage)


class DownsampleLayer(nn.Module):
    """A low-pass filter with stride 2, then a 1x1 convolution if the number of channels changes."""

    def __init__(self, narrow_channels: int, wide_channels: int, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        self.transition = channel_transition(narrow_channels, wide_channels)

    def forward(self, x: FeatureMaps) -> Float[Tensor, "batch new_channel new_height new_width"]:
        return self.transition(downsample(x, self.stage))


def upsample(x: FeatureMaps, stage: Stage) -> ResizedMaps:
    """Return the maps at the stage's large size: nearest-neighbor interpolation, then a blur.

    Where a side is exactly doubled, this is bilinear interpolation. The gradient of PyTorch's own bilinear
    interpolation is not deterministic on a GPU, so a resumed run would not end with the same bits.
    """
    return blur(interpolate(x, size=stage.large_size, mode="nearest"), stage)


def downsample(x: FeatureMaps, stage: Stage) -> ResizedMaps:
    """Return the maps at the stage's small size: a blur and a mean over pairs, together the filter [1, 3, 3, 1] / 8."""
    return avg_pool2d(blur(x, stage), stage.stride)


def blur(x: FeatureMaps, stage: Stage) -> FeatureMaps:
    """Return the maps after the filter [1, 2, 1] / 4 along the axes that the stage halves, with replicate padding."""
    for axis in (axis for axis, stride in zip((2, 3), stage.stride, strict=True) if stride == 2):
        last = x.shape[axis] - 1
        before = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, last)], dim=axis)
        after = torch.cat([x.narrow(axis, 1, last), x.narrow(axis, last, 1)], dim=axis)
        x = x * 0.5 + (before + after) * 0.25
    return x


def residual_blocks(channels: int, depth: int, num_blocks: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels, num_blocks) for _ in range(depth)))


def channel_transition(in_channels: int, out_channels: int) -> nn.Module:
    return (
        nn.Identity()
        if in_channels == out_channels
        else initialize_scaled(FastConv2d(in_channels, out_channels, 1, bias=False), 1.0)
    )


def group_width(channels: int) -> int:
    """Return the largest divisor of `channels` up to MAX_GROUP_WIDTH."""
    return max(width for width in range(1, MAX_GROUP_WIDTH + 1) if channels % width == 0)


def initialize_scaled(layer: Layer, gain: float) -> Layer:
    """Draw a layer's weights from Normal(0, gain^2 / fan-in), zeros for a gain of 0, and set its biases to 0."""
    nn.init.normal_(layer.weight, std=gain * layer.weight[0].numel() ** -0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
