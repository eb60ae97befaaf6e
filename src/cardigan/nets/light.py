"""A small generator for images of any kind, after FastGAN (Liu et al. 2021, arXiv:2101.04775, section 3.1).

Nearest-neighbor upsampling with 3x3 convolutions, batch normalization and gated linear units, and skip-layer excitation
from small maps to large ones. Images have any size of at least 8x8, square or not. Knows nothing of losses or training.
"""

import math
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import avg_pool2d, leaky_relu

from cardigan.config_parts import NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.nets.conditioning import ConditionalLatent
from cardigan.nets.convolution import FastConv2d, FastConvTranspose2d
from cardigan.nets.interface import Generator
from cardigan.nets.normalization import initialize_weights, normalization
from cardigan.nets.stages import channels_per_stage, stages
from cardigan.nets.upsampling import UpsampleConv2d
from cardigan.shapes import ClassWeights, Images, Labels, Latents

FeatureMaps = Float[Tensor, "batch channel height width"]
LargeMaps = Float[Tensor, "batch large_channel large_height large_width"]
GATE_GAIN = 1.85
"""1 / sqrt(E[sigmoid(x)^2]) for x of the standard normal distribution: what a gate takes from the deviation."""
EXCITATION_GRID = 4
"""Small maps are averaged to about this many rows and columns before they gate the large ones (arXiv:2101.04775,
figure 3)."""


class LightGenerator(Generator):
    """A map of z to the smallest size, upsampling stages with gates, and a 3x3 convolution with tanh.

    `depth` adds convolutions at each size but the largest. With the option `skip` of s, the maps of each stage are
    multiplied by gates computed from the maps s stages before.
    """

    feature_modules = "stages"
    accepts_class_weights = True
    latent_layer, image_layers, stage_lists = "from_latent", ("to_image",), {"stages": 1, "excitations": 0}

    def __init__(self, config: NetworkConfig, latent_size: int, spec: ImageSpec) -> None:
        super().__init__()
        levels = stages(spec.height, spec.width)[::-1]
        channels = channels_per_stage(config.width, len(levels) + 1)[::-1]
        sizes = [levels[0].small_size, *(level.large_size for level in levels)]
        depth, self.skip = config.depth or 1, int(config.options["skip"])
        self.latent = ConditionalLatent(latent_size, spec.num_classes, learned_embedding=True)
        self.from_latent = FastConvTranspose2d(
            self.latent.out_features, 2 * channels[0], levels[0].small_size, bias=False
        )
        self.first = nn.Sequential(
            normalization(config.normalization, 2 * channels[0]),
            Gate(),
            *(convolution_block(channels[0], config) for _ in range(depth - 1)),
        )
        self.stages = nn.ModuleList(
            nn.Sequential(
                UpsampleConv2d(wide, 2 * narrow, level),
                normalization(config.normalization, 2 * narrow),
                Gate(),
                *(convolution_block(narrow, config) for _ in range(depth - 1 if level is not levels[-1] else 0)),
            )
            for (wide, narrow), level in zip(pairwise(channels), levels, strict=True)
        )
        self.excitations = nn.ModuleDict(
            {
                str(stage): Excitation(channels[stage - self.skip], sizes[stage - self.skip], channels[stage])
                for stage in range(self.skip, len(channels))
                if self.skip
            }
        )
        self.to_image = FastConv2d(channels[-1], spec.channels, 3, padding=1)
        for module in self.modules():
            if isinstance(module, FastConv2d | FastConvTranspose2d) and module is not self.to_image:
                initialize_before_gate(module)
        initialize_weights(self, config.initialization)

    def forward(self, z: Latents, labels: Labels | ClassWeights | None = None) -> Images:
        return torch.tanh(self.to_image(self._maps(z, labels)[-1]))

    def _maps(self, z: Latents, labels: Labels | ClassWeights | None) -> list[Any]:
        """Return the maps of each size, smallest first."""
        maps = [self.first(self.from_latent(self.latent(z, labels)[:, :, None, None]))]
        for number, stage in enumerate(self.stages, start=1):
            larger = stage(maps[-1])
            gated = str(number) in self.excitations
            maps.append(self.excitations[str(number)](larger, maps[number - self.skip]) if gated else larger)
        return maps

    def output_parts(self, layer: str) -> int:
        """Values and gates, before every gate."""
        return 2 if layer == "from_latent" or layer.startswith(("first.", "stages.")) else 1

    @torch.no_grad()
    def pass_through(self, trained: "LightGenerator", z: Latents, labels: Labels | None) -> bool:
        """Set the added stages, which `trained` does not have, so that they only enlarge its last maps.

        All other weights must be copied from it already. `z` and `labels` show how large its maps are. Returns False
        and changes nothing where normalization has no learned scale, which cannot be undone.
        """
        maps = trained._maps(z, labels)[-1].float()
        variance, mean = torch.var_mean(maps, dim=(0, 2, 3))
        for number in range(len(trained.stages), len(self.stages)):
            stage = self.stages[number]
            assert isinstance(stage, nn.Sequential)
            upsample, norm = stage[0], stage[1]
            assert isinstance(upsample, UpsampleConv2d)
            kernel = upsample.kernel
            if isinstance(norm, nn.BatchNorm2d) and not norm.weight.requires_grad:
                return False
            values, narrow = len(mean), kernel.shape[1 if upsample.is_doubling else 0] // 2
            flat = kernel if upsample.is_doubling else kernel.transpose(0, 1)
            flat[:, :values] = 0
            flat[range(values), range(values), 1, 1] = 1.0
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight[:values], norm.bias[:values] = (variance + norm.eps).sqrt() / OPEN_GATE, mean / OPEN_GATE
                assert norm.running_mean is not None and norm.running_var is not None
                norm.running_mean[:values], norm.running_var[:values] = mean, variance
                norm.weight[narrow : narrow + values], norm.bias[narrow : narrow + values] = 0.0, OPEN_LOGIT
            else:
                flat[:, narrow : narrow + values] = 0
                flat[range(values), range(values), 1, 1] = 2.0  # a gate of 0 lets a half through
            excitation = dict(self.excitations.items()).get(str(number + 1))
            if isinstance(excitation, Excitation):
                excitation.open()
        return True


class Gate(nn.Module):
    """The gated linear unit: half of the channels, each multiplied by the sigmoid of one of the other half."""

    def forward(self, x: FeatureMaps) -> Float[Tensor, "batch half height width"]:
        return GatedLinear.apply(x)


class GatedLinear(Function):
    """`torch.nn.functional.glu` over channels, with gradients that keep the channels-last layout.

    Behind PyTorch's own, batch normalization falls back to a kernel ten times slower (docs/lab-book.md).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        half = x.shape[1] // 2
        values, opened = x[:, :half], x[:, half:].contiguous(memory_format=torch.channels_last).sigmoid_()
        ctx.save_for_backward(values, opened)
        return values * opened

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        values, opened = ctx.saved_tensors
        for_values = gradients[0] * opened
        return torch.cat([for_values, (for_values * values).mul_(1 - opened)], dim=1)


@torch.no_grad()
def initialize_before_gate(conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Draw weights with which maps keep their variance through the convolution and its gate."""
    weight = next(parameter for parameter in conv.parameters() if parameter.dim() > 1)
    transposed = isinstance(conv, nn.ConvTranspose2d)
    # A pixel that is made from z sees one place of it; all others see a whole kernel.
    kernel = 1 if transposed and conv.stride == (1, 1) else weight.shape[2] * weight.shape[3]
    fan_in = (weight.shape[0] if transposed else weight.shape[1]) * kernel
    weight.normal_(std=GATE_GAIN / fan_in**0.5)


def convolution_block(channels: int, config: NetworkConfig) -> nn.Module:
    """Return a 3x3 convolution with normalization and a gate, which keeps size and channels."""
    return nn.Sequential(
        FastConv2d(channels, 2 * channels, 3, padding=1, bias=False),
        normalization(config.normalization, 2 * channels),
        Gate(),
    )


OPEN_LOGIT = 3.0
OPEN_GATE = 1 / (1 + math.exp(-OPEN_LOGIT))
"""A gate that is nearly open, and what it lets through."""


class Excitation(nn.Module):
    """Multiplies the channels of large maps by gates computed from small maps (arXiv:2101.04775, eq. 2)."""

    def __init__(self, small_channels: int, small_size: tuple[int, int], large_channels: int) -> None:
        super().__init__()
        # Whole blocks of pixels: the gradient of adaptive pooling is not deterministic on a GPU.
        height, width = small_size
        self.block = (max(1, height // EXCITATION_GRID), max(1, width // EXCITATION_GRID))
        num_blocks = (height // self.block[0]) * (width // self.block[1])
        self.squeeze = nn.Linear(small_channels * num_blocks, large_channels)
        self.excite = nn.Linear(large_channels, large_channels)

    def forward(self, large: LargeMaps, small: FeatureMaps) -> LargeMaps:
        summary = avg_pool2d(small, self.block).flatten(1)
        gates = torch.sigmoid(self.excite(leaky_relu(self.squeeze(summary), 0.1)))
        return large * gates[:, :, None, None]

    def open(self) -> None:
        """Set all gates to nearly open."""
        nn.init.zeros_(self.excite.weight)
        nn.init.constant_(self.excite.bias, OPEN_LOGIT)
