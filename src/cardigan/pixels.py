"""Conversion between stored images (0..255) and network images ([-1, 1]).

The only file that knows 255. Does not know where images come from.
"""

import torch

from cardigan.shapes import Images, Pixels


def decode(pixels: Pixels) -> Images:
    """Return float32 images in [-1, 1]: 0 becomes -1, 255 becomes 1."""
    return pixels.to(torch.float32) / 127.5 - 1


def encode(images: Images) -> Pixels:
    """Return images rounded to 0..255. Values outside [-1, 1] are clipped. `encode(decode(x)) == x`."""
    return ((images.to(torch.float32) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_unit_range(images: Images) -> Images:
    """Return images in [0, 1] instead of [-1, 1]. Values outside are clipped."""
    return ((images.float() + 1) / 2).clamp(0, 1)
