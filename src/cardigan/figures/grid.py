"""Image grids and their PNG bytes. Writes no files."""

import io
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from cardigan.figures.layout import DIVIDER, GAP, GridLayout
from cardigan.figures.marking import Mark
from cardigan.shapes import Pixels

JPEG_QUALITY = 92
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


def png_bytes(image: GridImage, compress_level: int = 6, mark: Mark | None = None) -> bytes:
    """Return a gray, RGB or RGBA image as PNG bytes, with its mark if there is one.

    With other channel counts, only the first channel is used. Higher values of `compress_level`, 0..9, give smaller
    files and take more time. Compression is lossless.
    """
    return array_png_bytes(image.permute(1, 2, 0).numpy(), compress_level, mark)


def array_png_bytes(pixels: np.ndarray, compress_level: int = 6, mark: Mark | None = None) -> bytes:
    """Return the same for an image in the order of a file: uint8 [height, width, channels]."""
    buffer = io.BytesIO()
    info = None if mark is None else mark.png_info()
    pillow_image(pixels).save(buffer, format="PNG", compress_level=compress_level, pnginfo=info)
    return buffer.getvalue()


def jpeg_bytes(image: GridImage, mark: Mark | None = None) -> bytes:
    """Return a gray, RGB or RGBA image as JPEG bytes. Transparent pixels are white: JPEG has no transparency."""
    picture, buffer = pillow_image(image.permute(1, 2, 0).numpy()), io.BytesIO()
    if picture.mode == "RGBA":
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture).convert("RGB")
    more = {} if mark is None else {"xmp": mark.xmp().encode()}
    picture.save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0, **more)
    return buffer.getvalue()


def pillow_image(pixels: np.ndarray) -> Image.Image:
    """Return uint8 [height, width, channels] as a Pillow image: gray, RGB or RGBA."""
    return Image.fromarray(pixels if pixels.shape[2] in (3, 4) else pixels[:, :, 0])


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
