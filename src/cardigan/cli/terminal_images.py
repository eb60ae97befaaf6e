"""Images in a terminal: two pixels per character, the upper as a half block's color, the lower as its background.

Without colors, each character is one of five shades. Knows the layout of sample sheets, but not runs.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from rich.color import Color
from rich.style import Style
from rich.text import Text

from cardigan.figures.layout import GAP, GridLayout

TILE_SIZE = 14
"""Side of a shrunk image in pixels: a digit stays readable, and several fit."""
SHADES = " ░▒▓█"


def sheet_preview(sheet: Path, layout: GridLayout, columns: int, rows: int, color: bool) -> Text:
    """Return the first images of a sample sheet, generated on the left and real on the right.

    The text has at most `columns` by `rows` characters.
    """
    num_across = max(1, min(layout.columns, (columns // 2 - 2) // (TILE_SIZE + 1)))
    num_down = max(1, min(layout.rows, rows * 2 // (TILE_SIZE + 1)))
    with Image.open(sheet) as image:
        halves = [_crop_tiles(image, left, layout, num_across, num_down) for left in (0, layout.real_left)]
    bar = np.zeros((halves[0].shape[0], 3, 3), np.uint8)
    return _half_block_text(np.concatenate([halves[0], bar, halves[1]], axis=1), color)


def _crop_tiles(image: Image.Image, left: int, layout: GridLayout, num_across: int, num_down: int) -> np.ndarray:
    """Return the upper left tiles of one half of the sheet as uint8 [height, width, 3]."""
    box = (left, 0, left + num_across * (layout.width + GAP), num_down * (layout.height + GAP))
    corner = image.convert("RGB").crop(box)
    return np.asarray(corner.resize((num_across * (TILE_SIZE + 1), num_down * (TILE_SIZE + 1)), Image.Resampling.BOX))


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
