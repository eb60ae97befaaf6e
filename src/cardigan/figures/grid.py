"""Grids of pictures as PNG bytes, and what a terminal can show of them.

Writes no file.
"""

import io
from typing import TypeAlias

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from cardigan.figures.layout import DIVIDER, GAP, GridLayout
from cardigan.shapes import Pixels

GridImage: TypeAlias = UInt8[Tensor, "channel sheet_height sheet_width"]
"""One large picture, 0..255."""


def make_grid(pixels: Pixels) -> GridImage:
    """Return all pictures of a batch side by side in a square, row by row; missing ones stay black."""
    count, channels, height, width = pixels.shape
    layout = GridLayout(count, height, width)
    grid = pixels.new_zeros(channels, layout.rows * (height + GAP) - GAP, layout.columns * (width + GAP) - GAP)
    for index in range(count):
        top, left = layout.corner(index)
        grid[:, top : top + height, left : left + width] = pixels[index]
    return grid


def side_by_side(generated: Pixels, real: Pixels) -> GridImage:
    """Return the generated grid on the left, the real one on the right, a grey bar between: the tutorial's side-by-side view."""
    grids = (make_grid(generated), make_grid(real))
    bar = grids[0].new_full((*grids[0].shape[:2], DIVIDER), 128)
    return torch.cat([grids[0], bar, grids[1]], dim=2)


def png_bytes(image: GridImage, compress_level: int = 6) -> bytes:
    """Return a picture as the bytes of a PNG file: grey, RGB or RGBA; of other channel counts the first channel.

    `compress_level`, 0..9, makes the file smaller and takes time; the picture is the same.
    """
    pixels = (image if len(image) in (1, 3, 4) else image[:1]).permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(
        buffer, format="PNG", compress_level=compress_level
    )
    return buffer.getvalue()


PAIRS_PER_ROW = 8


def neighbor_grid(samples: Pixels, neighbors: Pixels) -> GridImage:
    """Return pairs, each a sample on the left of its neighbour, eight pairs a row; samples and neighbours have equal shapes."""
    count, channels, height, width = samples.shape
    columns = min(count, PAIRS_PER_ROW)
    rows = -(-count // columns)
    pair_width = 2 * width + GAP
    grid = torch.full(
        (channels, rows * (height + GAP) - GAP, columns * (pair_width + DIVIDER) - DIVIDER), 128, dtype=torch.uint8
    )
    for index in range(count):
        top, left = index // columns * (height + GAP), index % columns * (pair_width + DIVIDER)
        grid[:, top : top + height, left : left + width] = samples[index]
        grid[:, top : top + height, left + width + GAP : left + pair_width] = neighbors[index]
    return grid
