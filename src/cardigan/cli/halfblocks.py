"""Pictures in a terminal: two pixels a character, the upper as the colour of a half block, the lower as its background.

Without colours, one of five shades a character. Knows the layout of a run's sample sheets, nothing of runs.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from rich.color import Color
from rich.style import Style
from rich.text import Text

from cardigan.figures.layout import GAP, SheetLayout

TILE = 14
"""Pixels a picture is shrunk to, so that a digit stays readable and several fit."""
SHADES = " ░▒▓█"


def preview(sheet: Path, layout: SheetLayout, columns: int, rows: int, colour: bool) -> Text:
    """Return the first pictures of a sample sheet, generated on the left and real on the right, at most `columns` by `rows` characters."""
    across = max(1, min(layout.columns, (columns // 2 - 2) // (TILE + 1)))
    down = max(1, min(layout.rows, rows * 2 // (TILE + 1)))
    with Image.open(sheet) as image:
        halves = [_corner(image, left, layout, across, down) for left in (0, layout.real_left)]
    bar = np.zeros((halves[0].shape[0], 3, 3), np.uint8)
    return _text(np.concatenate([halves[0], bar, halves[1]], axis=1), colour)


def _corner(image: Image.Image, left: int, layout: SheetLayout, across: int, down: int) -> np.ndarray:
    """Return the upper left tiles of one half of the sheet as uint8 [height, width, 3]."""
    box = (left, 0, left + across * (layout.width + GAP), down * (layout.height + GAP))
    corner = image.convert("RGB").crop(box)
    return np.asarray(corner.resize((across * (TILE + 1), down * (TILE + 1)), Image.Resampling.BOX))


def _text(pixels: np.ndarray, colour: bool) -> Text:
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, np.zeros_like(pixels[:1])])
    text = Text(no_wrap=True)
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        for top, bottom in zip(upper.tolist(), lower.tolist(), strict=True):
            if colour:
                text.append("▀", Style(color=Color.from_rgb(*top), bgcolor=Color.from_rgb(*bottom)))
            else:
                text.append(SHADES[round((sum(top) + sum(bottom)) / 6 / 255 * (len(SHADES) - 1))])
        text.append("\n")
    return text
