"""Images in a terminal: two pixels per character, the upper as a half block's color, the lower as its background.

Without colors, each character is one of five shades. Knows the layout of sample sheets, but not runs.
"""

import math
from pathlib import Path

import numpy as np
from PIL import Image
from rich.color import Color
from rich.style import Style
from rich.text import Text

from cardigan.figures.layout import GAP, GridLayout

TILE_SIZE = 14
"""Side of a shrunk image in pixels: a digit stays readable, and several fit."""
MIN_TILE_SIZE, MIN_TILE_ROWS = 8, 2
"""Images shrink before fewer than two rows of them are shown."""
MIN_PREVIEW_ROWS = 1 + math.ceil(MIN_TILE_ROWS * (MIN_TILE_SIZE + 1) / 2)
"""Rows of text that a preview needs: its label, and two rows of the smallest images."""
SHADES = " ░▒▓█"


def sheet_preview(sheet: Path, layout: GridLayout, columns: int, rows: int, color: bool, age: str = "") -> Text:
    """Return the first images of a sample sheet, generated on the left and real on the right, with a label above each.

    `age` tells when the samples were made. The text has at most `columns` by `rows` characters, or is empty if two rows
    of images do not fit.
    """
    if rows < MIN_PREVIEW_ROWS:
        return Text()
    num_rows = min(MIN_TILE_ROWS, layout.rows)
    tile_size = min(TILE_SIZE, (rows - 1) * 2 // num_rows - 1)
    num_across = max(1, min(layout.columns, (columns // 2 - 2) // (tile_size + 1)))
    num_down = min(layout.rows, (rows - 1) * 2 // (tile_size + 1))
    with Image.open(sheet) as image:
        halves = [_crop_tiles(image, left, layout, num_across, num_down, tile_size) for left in (0, layout.real_left)]
    bar = np.zeros((halves[0].shape[0], 3, 3), np.uint8)
    width = halves[0].shape[1] + bar.shape[1]
    label = f"{f'generated {age}'.strip()[: width - 1]:<{width}}real"
    return Text.assemble(
        (f"{label}\n", "dim"), _half_block_text(np.concatenate([halves[0], bar, halves[1]], axis=1), color)
    )


def _crop_tiles(
    image: Image.Image, left: int, layout: GridLayout, num_across: int, num_down: int, tile_size: int
) -> np.ndarray:
    """Return the upper left tiles of one half of the sheet as uint8 [height, width, 3]."""
    box = (left, 0, left + num_across * (layout.width + GAP), num_down * (layout.height + GAP))
    corner = image.convert("RGB").crop(box)
    return np.asarray(corner.resize((num_across * (tile_size + 1), num_down * (tile_size + 1)), Image.Resampling.BOX))


def _half_block_text(pixels: np.ndarray, color: bool) -> Text:
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, np.zeros_like(pixels[:1])])
    text = Text(no_wrap=True)
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        for top, bottom in zip(upper.tolist(), lower.tolist(), strict=True):
            if color:
                text.append("▀", Style(color=Color.from_rgb(*top), bgcolor=Color.from_rgb(*bottom)))
            else:
                text.append(SHADES[round((sum(top) + sum(bottom)) / 6 / 255 * (len(SHADES) - 1))])
        text.append("\n")
    return text
