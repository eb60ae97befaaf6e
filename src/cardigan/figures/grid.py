"""Image grids and their PNG bytes. Writes no files."""

import io
from typing import TypeAlias

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from cardigan.figures.layout import DIVIDER, GAP, GridLayout
from cardigan.shapes import Pixels

GridImage: TypeAlias = UInt8[Tensor, "channel sheet_height sheet_width"]
"""One image, 0..255."""


def make_grid(pixels: Pixels) -> GridImage:
    """Return the images of a batch as a square grid, row by row. Empty cells are black."""
    count, channels, height, width = pixels.shape
    layout = GridLayout(count, height, width)
    grid = pixels.new_zeros(channels, layout.rows * (height + GAP) - GAP, layout.columns * (width + GAP) - GAP)
    for index in range(count):
        top, left = layout.corner(index)
        grid[:, top : top + height, left : left + width] = pixels[index]
    return grid


def side_by_side(generated: Pixels, real: Pixels) -> GridImage:
    """Return the generated grid on the left and the real grid on the right, separated by a gray bar."""
    grids = (make_grid(generated), make_grid(real))
    bar = grids[0].new_full((*grids[0].shape[:2], DIVIDER), 128)
    return torch.cat([grids[0], bar, grids[1]], dim=2)


def png_bytes(image: GridImage, compress_level: int = 6) -> bytes:
    """Return a gray, RGB or RGBA image as PNG bytes. With other channel counts, only the first channel is used.

    Higher values of `compress_level`, 0..9, give smaller files and take more time. Compression is lossless.
    """
    pixels = (image if len(image) in (1, 3, 4) else image[:1]).permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(
        buffer, format="PNG", compress_level=compress_level
    )
    return buffer.getvalue()


PAIRS_PER_ROW = 8


def neighbor_grid(samples: Pixels, neighbors: Pixels) -> GridImage:
    """Return pairs of a sample (left) and its neighbor (right), eight pairs per row. Shapes must be equal."""
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
