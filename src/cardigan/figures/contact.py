"""A contact sheet as PNG bytes: titled sections of images of one size. Does not import torch."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cardigan.figures.layout import GAP

COLUMNS = 10
HEADING_HEIGHT = 22
"""Pixels for the title above each section."""
BACKGROUND, FOREGROUND = (255, 255, 255), (26, 32, 44)


@dataclass(frozen=True)
class Section:
    """Images under a title, each uint8 [cell, cell, 3], ten per row."""

    title: str
    images: Sequence[np.ndarray]


def contact_sheet(sections: Sequence[Section], cell_size: int) -> bytes:
    """Return the sections stacked vertically as a PNG. Empty sections are omitted."""
    nonempty = [section for section in sections if section.images]
    heights = [HEADING_HEIGHT + math.ceil(len(section.images) / COLUMNS) * (cell_size + GAP) for section in nonempty]
    sheet = Image.new("RGB", (COLUMNS * (cell_size + GAP) - GAP, max(HEADING_HEIGHT, sum(heights))), BACKGROUND)
    top = 0
    for section, height in zip(nonempty, heights, strict=True):
        _draw(sheet, section, cell_size, top)
        top += height
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue()


def _draw(sheet: Image.Image, section: Section, cell_size: int, top: int) -> None:
    ImageDraw.Draw(sheet).text((4, top + 4), section.title, fill=FOREGROUND, font=ImageFont.load_default())
    for index, pixels in enumerate(section.images):
        row, column = divmod(index, COLUMNS)
        sheet.paste(
            Image.fromarray(pixels), (column * (cell_size + GAP), top + HEADING_HEIGHT + row * (cell_size + GAP))
        )
