"""Residual networks of SNGAN (Miyato et al. 2018, arXiv:1802.05957, appendix B.4), optionally with self-attention.

Images have any size of at least 8x8, square or not. Labels enter G through conditional batch normalization, or as an
embedding concatenated to z if there is no batch normalization. They enter D as a projection (arXiv:1802.05637). Knows
nothing of losses or training.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from cardigan.config_parts import NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.nets.attention import SelfAttention, attention_size
from cardigan.nets.conditioning import ConditionalLatent, Head, mixed_rows
from cardigan.nets.convolution import FastConv2d
from cardigan.nets.interface import Discriminator, Generator
from cardigan.nets.minibatch_stddev import append_minibatch_stddev
from cardigan.nets.normalization import initialize_weights, normalization
from cardigan.nets.spectral import apply_spectral_norm
from cardigan.nets.stages import channels_per_stage, stages
from cardigan.shapes import ClassWeights, Images, Labels, Latents, Logits

FeatureMaps: TypeAlias = Float[Tensor, "batch channel height width"]
ResizedMaps: TypeAlias = Float[Tensor, "batch new_channel new_height new_width"]
Layer = TypeVar("Layer", FastConv2d, nn.Linear)

DEFAULT_DEPTH = 1
"""Residual blocks at each size, unless the config sets a depth."""
RESIDUAL_GAIN, UNIT_GAIN = 2**0.5, 1.0
"""Gains of Glorot initialization on a residual branch and elsewhere."""


class ResnetGenerator(Generator):
    """A linear map of z to the smallest size, upsampling blocks, normalization, ReLU, a convolution and tanh."""

    feature_modules = "up_stages"
    accepts_class_weights = True
    latent_layer, image_layers, stage_lists = "from_latent", ("to_image",), {"up_stages": 1}

    def __init__(self, config: NetworkConfig, latent_size: int, spec: ImageSpec) -> None:
        super().__init__()
        levels, depth = stages(spec.height, spec.width)[::-1], config.depth or DEFAULT_DEPTH
        channels = channels_per_stage(config.width, len(levels))[::-1]
        attention_at = attention_size(
            config.options["attention_resolution"], [step.large_size for step in levels], "generator"
        )
        conditional_norm = config.normalization == "batch"
        norm = partial(ConditionalNorm, config.normalization, spec.num_classes if conditional_norm else 0)
        self.latent = ConditionalLatent(
            latent_size, 0 if conditional_norm else spec.num_classes, learned_embedding=True
        )
        self.base_shape = (channels[0], *levels[0].small_size)
        self.from_latent = initialize_glorot(
            nn.Linear(self.latent.out_features, channels[0] * levels[0].small_size[0] * levels[0].small_size[1]),
            UNIT_GAIN,
        )
        self.up_stages = nn.ModuleList(
            GeneratorStage(wide, narrow, step.large_size, depth, norm, with_attention=step.large_size == attention_at)
            for wide, narrow, step in zip([channels[0], *channels], channels, levels, strict=False)
        )
        self.norm = normalization(config.normalization, channels[-1])
        self.to_image = initialize_glorot(FastConv2d(channels[-1], spec.channels, 3, padding=1), UNIT_GAIN)
        initialize_weights(self, config.initialization)
        if config.spectral_norm:
            apply_spectral_norm(self)

    def forward(self, z: Latents, labels: Labels | ClassWeights | None = None) -> Images:
        hidden = self.from_latent(self.latent(z, labels)).unflatten(1, self.base_shape)
        for up_stage in self.up_stages:
            hidden = up_stage(hidden, labels)
        return torch.tanh(self.to_image(torch.relu(self.norm(hidden))))


class ResnetDiscriminator(Discriminator):
    """Downsampling blocks and one block without downsampling, ReLU, the sum over the image, and a head."""

    feature_modules = "layers"
    image_layers, stage_lists = ("layers.0.conv1", "layers.0.shortcut"), ("layers",)

    def __init__(self, config: NetworkConfig, spec: ImageSpec) -> None:
        super().__init__()
        levels, depth = stages(spec.height, spec.width), config.depth or DEFAULT_DEPTH
        channels = channels_per_stage(config.width, len(levels))
        attention_at = attention_size(
            config.options["attention_resolution"], [step.small_size for step in levels], "discriminator"
        )
        layers: list[nn.Module] = []
        for narrow, wide, step in zip([spec.channels, *channels], channels, levels, strict=False):
            layers.append(DiscriminatorBlock(narrow, wide, step.stride, is_first=not layers))
            layers += [DiscriminatorBlock(wide, wide) for _ in range(1, depth)]
            layers += [SelfAttention(wide)] if step.small_size == attention_at else []
        self.stddev_group_size = config.minibatch_stddev
        self.layers = nn.Sequential(*layers, DiscriminatorBlock(channels[-1], channels[-1]))
        self.head = Head(channels[-1] + (self.stddev_group_size > 0), spec.num_classes)
        initialize_weights(self, config.initialization)
        if config.spectral_norm:
            apply_spectral_norm(self)

    def forward(self, images: Images, labels: Labels | None = None) -> Logits:
        hidden = torch.relu(self.layers(images))
        return self.head(append_minibatch_stddev(hidden, self.stddev_group_size).float().sum(dim=(2, 3)), labels)


class GeneratorStage(nn.Module):
    """G's blocks at one size: one that upsamples to it, `depth` - 1 at the same size, and optional self-attention."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        output_size: tuple[int, int],
        depth: int,
        norm: Callable[[int], nn.Module],
        with_attention: bool,
    ) -> None:
        super().__init__()
        same_size_blocks = [GeneratorBlock(out_channels, out_channels, None, norm) for _ in range(1, depth)]
        self.blocks = nn.ModuleList([GeneratorBlock(in_channels, out_channels, output_size, norm), *same_size_blocks])
        self.attention = SelfAttention(out_channels) if with_attention else nn.Identity()

    def forward(self, x: FeatureMaps, labels: Labels | ClassWeights | None) -> ResizedMaps:
        for block in self.blocks:
            x = block(x, labels)
        return self.attention(x)


class GeneratorBlock(nn.Module):
    """Normalization, ReLU and a 3x3 convolution, twice, with a shortcut.

    With `output_size`, nearest-neighbor upsampling precedes the first convolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, output_size: tuple[int, int] | None, norm: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.norms = nn.ModuleList([norm(in_channels), norm(out_channels)])
        self.conv1, self.conv2 = residual_conv(in_channels, out_channels), residual_conv(out_channels, out_channels)
        self.shortcut = shortcut(in_channels, out_channels, resized=output_size is not None)

    def forward(self, x: FeatureMaps, labels: Labels | ClassWeights | None) -> ResizedMaps:
        hidden = self.conv1(self._upsample(torch.relu(self.norms[0](x, labels))))
        hidden = self.conv2(torch.relu(self.norms[1](hidden, labels)))
        return self._upsample(self.shortcut(x)) + hidden

    def _upsample(self, x: FeatureMaps) -> ResizedMaps:
        return interpolate(x, size=self.output_size, mode="nearest") if self.output_size else x


class DiscriminatorBlock(nn.Module):
    """ReLU and a 3x3 convolution, twice, with a shortcut. D's first block has no first ReLU.

    With `stride`, average pooling follows the second convolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: tuple[int, int] | None = None, is_first: bool = False
    ) -> None:
        super().__init__()
        self.stride, self.is_first = stride, is_first
        hidden = out_channels if is_first else in_channels
        self.conv1, self.conv2 = residual_conv(in_channels, hidden), residual_conv(hidden, out_channels)
        self.shortcut = shortcut(in_channels, out_channels, resized=stride is not None)

    def forward(self, x: FeatureMaps) -> ResizedMaps:
        hidden = self.conv2(torch.relu(self.conv1(x if self.is_first else torch.relu(x))))
        return self.shortcut(self._downsample(x)) + self._downsample(hidden)

    def _downsample(self, x: FeatureMaps) -> ResizedMaps:
        return avg_pool2d(x, self.stride) if self.stride else x


class ConditionalNorm(nn.Module):
    """Normalization with a scale and a shift per class (arXiv:1610.07629, section 2.2).

    They are stored as deviations from a common scale and shift. The deviations start at 0.
    """

    def __init__(self, kind: Literal["none", "batch", "batch-no-scale"], num_classes: int, channels: int) -> None:
        super().__init__()
        self.norm = normalization(kind, channels)
        self.scales, self.shifts = (
            nn.Parameter(torch.zeros(num_classes, channels)) if num_classes else None for _ in range(2)
        )

    def forward(self, x: FeatureMaps, labels: Labels | ClassWeights | None) -> FeatureMaps:
        x = self.norm(x)
        if self.scales is None or self.shifts is None:
            return x
        scale, shift = (mixed_rows(table, labels)[:, :, None, None].to(x.dtype) for table in (self.scales, self.shifts))
        return x + x * scale + shift


def residual_conv(in_channels: int, out_channels: int) -> FastConv2d:
    return initialize_glorot(FastConv2d(in_channels, out_channels, 3, padding=1), RESIDUAL_GAIN)


def shortcut(in_channels: int, out_channels: int, resized: bool) -> nn.Module:
    """Return the shortcut: a 1x1 convolution if the size or the number of channels changes, else the identity."""
    return (
        initialize_glorot(FastConv2d(in_channels, out_channels, 1), UNIT_GAIN)
        if resized or in_channels != out_channels
        else nn.Identity()
    )


def initialize_glorot(layer: Layer, gain: float) -> Layer:
    """Draw a layer's weights as in Glorot and Bengio (2010, eq. 16), times a gain, and set its biases to 0."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
