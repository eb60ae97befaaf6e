"""Self-attention over spatial positions (Zhang et al. 2018, SAGAN, arXiv:1805.08318, section 3). Knows no network."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from cardigan.errors import CardiganError
from cardigan.nets.convolution import FastConv2d

FeatureMaps = Float[Tensor, "batch channel height width"]


class SelfAttention(nn.Module):
    """Return x + gamma * attention(x). gamma starts at 0, so the layer starts as the identity.

    Queries and keys have an eighth of the channels, values a half. Keys and values are max-pooled over 2x2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        eighth, half = max(1, channels // 8), max(1, channels // 2)
        self.query, self.key = (FastConv2d(channels, eighth, 1, bias=False) for _ in range(2))
        self.value = FastConv2d(channels, half, 1, bias=False)
        self.output = FastConv2d(half, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: FeatureMaps) -> FeatureMaps:
        query, key, value = (
            self.query(x).flatten(2),
            _max_pool_2x2(self.key(x)).flatten(2),
            _max_pool_2x2(self.value(x)).flatten(2),
        )
        weights = torch.bmm(query.transpose(1, 2), key).float().softmax(dim=2)
        attended = torch.bmm(value, weights.transpose(1, 2).to(value.dtype)).unflatten(2, x.shape[2:])
        return x + self.gamma * self.output(attended)


def _max_pool_2x2(x: FeatureMaps) -> Float[Tensor, "batch channel half_height half_width"]:
    """Return 2x2 max pooling. With `return_indices`, PyTorch's operation has second derivatives on every device."""
    largest, _ = max_pool2d(x, 2, return_indices=True)
    return largest


def attention_size(
    side: bool | int | float | str, sizes: Iterable[tuple[int, int]], network: str
) -> tuple[int, int] | None:
    """Return the largest of a network's map sizes whose shorter side is `side`, or None if `side` is 0.

    Raises CardiganError if no map has that side.
    """
    all_sizes = list(sizes)
    matching = [size for size in all_sizes if min(size) == side]
    if side and not matching:
        sides = ", ".join(str(shorter) for shorter in sorted({min(size) for size in all_sizes}))
        raise CardiganError(
            f"{network}.options.attention_resolution is {side}, but the shorter sides of the {network}'s maps are "
            f"{sides}: set one of them, or 0 for none."
        )
    return max(matching, default=None)
