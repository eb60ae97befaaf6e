"""Grids of pictures as PNG bytes, and what a terminal can show of them.

Writes no file.
"""

import io
from typing import TypeAlias

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from cardigan.figures.layout import BAR, GAP, SheetLayout
from cardigan.shapes import Pixels

Sheet: TypeAlias = UInt8[Tensor, "channel sheet_height sheet_width"]
"""One large picture, 0..255."""


def tile(pixels: Pixels) -> Sheet:
    """Return all pictures of a batch side by side in a square, row by row; missing ones stay black."""
    count, channels, height, width = pixels.shape
    layout = SheetLayout(count, height, width)
    sheet = pixels.new_zeros(channels, layout.rows * (height + GAP) - GAP, layout.columns * (width + GAP) - GAP)
    for index in range(count):
        top, left = layout.corner(index)
        sheet[:, top : top + height, left : left + width] = pixels[index]
    return sheet


def beside(generated: Pixels, real: Pixels) -> Sheet:
    """Return the generated grid on the left, the real one on the right, a grey bar between: the tutorial's side-by-side view."""
    grids = (tile(generated), tile(real))
    bar = grids[0].new_full((*grids[0].shape[:2], BAR), 128)
    return torch.cat([grids[0], bar, grids[1]], dim=2)


def png(sheet: Sheet, effort: int = 6) -> bytes:
    """Return a picture as the bytes of a PNG file: grey, RGB or RGBA; of other channel counts the first channel.

    `effort`, 0..9, makes the file smaller and takes time; the picture is the same.
    """
    picture = (sheet if len(sheet) in (1, 3, 4) else sheet[:1]).permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).save(buffer, format="PNG", compress_level=effort)
    return buffer.getvalue()
