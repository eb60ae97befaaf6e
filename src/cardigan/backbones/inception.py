"""The Inception-v3 of the FID: arXiv:1512.00567 in the form of TensorFlow's `inception-2015-12-05`.

It has 2048 features and 1008 classes. Parameter names match `pt_inception-2015-12-05`. The user provides the weights.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d

STEM = (("Conv2d_1a_3x3", 3, 32, 3, 2, 0), ("Conv2d_2a_3x3", 32, 32, 3, 1, 0), ("Conv2d_2b_3x3", 32, 64, 3, 1, 1))
STEM_AFTER = (("Conv2d_3b_1x1", 64, 80, 1, 1, 0), ("Conv2d_4a_3x3", 80, 192, 3, 1, 0))
"""Name, input and output channels, kernel, stride, padding. A 3x3 max pooling with stride 2 follows each group."""

A = ("1x1:64:1x1", "5x5_1:48:1x1 5x5_2:64:5x5", "3x3dbl_1:64:1x1 3x3dbl_2:96:3x3 3x3dbl_3:96:3x3")
B = ("3x3:384:3x3/2", "3x3dbl_1:64:1x1 3x3dbl_2:96:3x3 3x3dbl_3:96:3x3/2")
C = (
    "1x1:192:1x1",
    "7x7_1:N:1x1 7x7_2:N:1x7 7x7_3:192:7x1",
    "7x7dbl_1:N:1x1 7x7dbl_2:N:7x1 7x7dbl_3:N:1x7 7x7dbl_4:N:7x1 7x7dbl_5:192:1x7",
)
D = ("3x3_1:192:1x1 3x3_2:320:3x3/2", "7x7x3_1:192:1x1 7x7x3_2:192:1x7 7x7x3_3:192:7x1 7x7x3_4:192:3x3/2")
E = (
    "1x1:320:1x1",
    "3x3_1:384:1x1 3x3_2a:384:1x3|3x3_2b:384:3x1",
    "3x3dbl_1:448:1x1 3x3dbl_2:384:3x3 3x3dbl_3a:384:1x3|3x3dbl_3b:384:3x1",
)
"""Branches of a block. Each is a chain of `name:channels:kernel`.

`/2` is stride 2, `|` splits the end of a chain, and N is the branch channels of the block.
"""

BLOCKS = (
    *(
        ("Mixed_5b", 192, A, 0, "average", 32),
        ("Mixed_5c", 256, A, 0, "average", 64),
        ("Mixed_5d", 288, A, 0, "average", 64),
    ),
    ("Mixed_6a", 288, B, 0, "halve", 0),
    *(("Mixed_6b", 768, C, 128, "average", 192), ("Mixed_6c", 768, C, 160, "average", 192)),
    *(("Mixed_6d", 768, C, 160, "average", 192), ("Mixed_6e", 768, C, 192, "average", 192)),
    ("Mixed_7a", 768, D, 0, "halve", 0),
    # The last block uses max pooling where the paper averages, as the 2015 graph that defines the FID does.
    *(("Mixed_7b", 1280, E, 0, "average", 192), ("Mixed_7c", 2048, E, 0, "maximum", 192)),
)
"""Name, input channels, branches, N, pooling, channels of the pooling branch."""


class BasicConv2d(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, kernel: tuple[int, int], stride: int, padding: tuple[int, int]
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))


class InceptionBlock(nn.Module):
    """Parallel branches with concatenated channels, the pooling branch last."""

    def __init__(
        self, in_channels: int, branches: tuple[str, ...], branch_channels: int, pooling: str, pool_channels: int
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.chains: list[list[list[str]]] = []
        for branch in branches:
            channels, chain = in_channels, []
            for step in branch.split():
                out_channels = channels
                for word in step.split("|"):
                    name, count, shape = word.split(":")
                    out_channels = branch_channels if count == "N" else int(count)
                    self._add(f"branch{name}", channels, out_channels, shape)
                chain.append([f"branch{word.split(':')[0]}" for word in step.split("|")])
                channels = out_channels
            self.chains.append(chain)
        if pool_channels:
            self._add("branch_pool", in_channels, pool_channels, "1x1")

    def _add(self, name: str, in_channels: int, out_channels: int, shape: str) -> None:
        size, _, stride = shape.partition("/")
        height, width = (int(side) for side in size.split("x"))
        padding = (0, 0) if stride else (height // 2, width // 2)
        self.add_module(name, BasicConv2d(in_channels, out_channels, (height, width), int(stride or 1), padding))

    def forward(self, x: Tensor) -> Tensor:
        ends = []
        for chain in self.chains:
            hidden = x
            for names in chain:
                hidden = torch.cat([self.get_submodule(name)(hidden) for name in names], dim=1)
            ends.append(hidden)
        return torch.cat([*ends, self._pool(x)], dim=1)

    def _pool(self, x: Tensor) -> Tensor:
        if self.pooling == "halve":
            return max_pool2d(x, 3, 2)
        pooled = (
            max_pool2d(x, 3, 1, 1) if self.pooling == "maximum" else avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        )
        return self.get_submodule("branch_pool")(pooled)


class InceptionV3(nn.Module):
    """Maps RGB 299x299 images in [-1, 1] to the 2048 features before the classifier."""

    def __init__(self) -> None:
        super().__init__()
        for name, in_channels, out_channels, kernel, stride, padding in (*STEM, *STEM_AFTER):
            self.add_module(name, BasicConv2d(in_channels, out_channels, (kernel, kernel), stride, (padding, padding)))
        for name, in_channels, branches, branch_channels, pooling, pool_channels in BLOCKS:
            self.add_module(name, InceptionBlock(in_channels, branches, branch_channels, pooling, pool_channels))
        self.fc = nn.Linear(2048, 1008)

    def forward(self, images: Float[Tensor, "batch 3 299 299"]) -> Float[Tensor, "batch 2048"]:
        hidden = images
        for group in (STEM, STEM_AFTER):
            for name, *_ in group:
                hidden = self.get_submodule(name)(hidden)
            hidden = max_pool2d(hidden, 3, 2)
        for name, *_ in BLOCKS:
            hidden = self.get_submodule(name)(hidden)
        return hidden.mean(dim=(2, 3))


def tensorflow_resize(
    pixels: Float[Tensor, "batch channel h w"], height: int, width: int
) -> Float[Tensor, "batch channel out_h out_w"]:
    """Return images resized as in TensorFlow 1, which the FID requires.

    The resize is bilinear, without half-pixel centers or antialiasing.
    """
    for axis, size in ((2, height), (3, width)):
        in_size = pixels.shape[axis]
        position = torch.arange(size, dtype=torch.float32, device=pixels.device) * torch.tensor(
            in_size / size, dtype=torch.float32, device=pixels.device
        )
        low = position.long()
        high = (low + 1).clamp(max=in_size - 1)
        fraction = (position - low).reshape(-1, *[1] * (3 - axis))
        first, second = pixels.index_select(axis, low), pixels.index_select(axis, high)
        pixels = first + (second - first) * fraction
    return pixels
