"""A small U-Net that predicts an image from a noisy one and its time: the network of the diffusion rivals.

After Ho et al. 2020 (arXiv:2006.11239, appendix B), without attention at the large sizes. It has 1.3 million weights
with width 24; the generator of the recipe `images` has 1.1 million.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, silu

GROUPS = 8


def embed(times: Tensor, size: int) -> Tensor:
    """Return sines and cosines of the times [batch], [batch, size] (arXiv:1706.03762, section 3.5)."""
    frequencies = torch.exp(torch.arange(size // 2, device=times.device) * (-math.log(1e4) / (size // 2)))
    angles = 1000 * times[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Block(nn.Module):
    """Two convolutions with group normalization, modulated by the time, and a shortcut."""

    def __init__(self, inputs: int, outputs: int, time_size: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(GROUPS, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(GROUPS, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(time_size, 2 * outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        hidden = self.conv1(silu(self.norm1(x)))
        scale, shift = self.modulation(time)[:, :, None, None].chunk(2, dim=1)
        return self.shortcut(x) + self.conv2(silu(self.norm2(hidden) * (1 + scale) + shift))


class Attention(nn.Module):
    """Self-attention with one head over all pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.to_qkv = nn.GroupNorm(GROUPS, channels), nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.to_qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, dim=2)
        weights = (query @ key.transpose(1, 2) * query.shape[2] ** -0.5).softmax(dim=2)
        return x + self.out((weights @ value).transpose(1, 2).unflatten(2, x.shape[2:]))


class UNet(nn.Module):
    """`forward(images, times, ends=None)`: images [batch, channel, side, side], times in [0, 1], to images.

    With `two_times` it also reads a second time, as MeanFlow does. `side` is a multiple of 8.
    """

    def __init__(self, channels: int, width: int = 24, two_times: bool = False) -> None:
        super().__init__()
        widths, self.width = (width, 2 * width, 3 * width, 4 * width), width
        time_size = 4 * width
        self.times = nn.ModuleList(
            nn.Sequential(nn.Linear(width, time_size), nn.SiLU(), nn.Linear(time_size, time_size))
            for _ in range(1 + two_times)
        )
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.down = nn.ModuleList(
            Block(inputs, outputs, time_size) for inputs, outputs in zip((width, *widths), widths, strict=False)
        )
        self.middle = nn.ModuleList(
            [Block(widths[-1], widths[-1], time_size), Block(widths[-1], widths[-1], time_size)]
        )
        self.attention = Attention(widths[-1])
        self.up = nn.ModuleList(
            Block(2 * outputs if level == len(widths) - 1 else widths[level + 1] + outputs, outputs, time_size)
            for level, outputs in reversed(list(enumerate(widths)))
        )
        self.norm, self.last = nn.GroupNorm(GROUPS, width), nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)

    def forward(self, images: Tensor, times: Tensor, ends: Tensor | None = None) -> Tensor:
        all_times = [times] if ends is None else [times, times - ends]
        time = sum(silu(layer(embed(each, self.width))) for layer, each in zip(self.times, all_times, strict=True))
        assert isinstance(time, Tensor)
        hidden, kept = self.first(images), []
        for level, block in enumerate(self.down):
            hidden = block(avg_pool2d(hidden, 2) if level else hidden, time)
            kept.append(hidden)
        hidden = self.middle[1](self.attention(self.middle[0](hidden, time)), time)
        for level, block in enumerate(self.up):
            hidden = block(torch.cat([hidden, kept.pop()], dim=1), time)
            if level < len(self.up) - 1:
                hidden = interpolate(hidden, scale_factor=2.0, mode="nearest")
        return self.last(silu(self.norm(hidden)))
