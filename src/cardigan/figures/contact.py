"""A contact sheet: named rows of pictures of one size, as PNG bytes.

Knows neither where pictures come from nor why they were chosen. Imports no torch.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cardigan.figures.layout import GAP

COLUMNS = 10
HEADING = 22
"""Pixels above each section, for its title."""
PAPER, INK = (255, 255, 255), (26, 32, 44)


@dataclass(frozen=True)
class Section:
    """Pictures under a title, each uint8 [cell, cell, 3], ten to a row."""

    title: str
    pictures: Sequence[np.ndarray]


def contact_sheet(sections: Sequence[Section], cell: int) -> bytes:
    """Return the sections one below the other as a PNG; those without pictures are left out."""
    shown = [section for section in sections if section.pictures]
    heights = [HEADING + math.ceil(len(section.pictures) / COLUMNS) * (cell + GAP) for section in shown]
    sheet = Image.new("RGB", (COLUMNS * (cell + GAP) - GAP, max(HEADING, sum(heights))), PAPER)
    top = 0
    for section, height in zip(shown, heights, strict=True):
        _draw(sheet, section, cell, top)
        top += height
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue()


def _draw(sheet: Image.Image, section: Section, cell: int, top: int) -> None:
    ImageDraw.Draw(sheet).text((4, top + 4), section.title, fill=INK, font=ImageFont.load_default())
    for place, pixels in enumerate(section.pictures):
        row, column = divmod(place, COLUMNS)
        sheet.paste(Image.fromarray(pixels), (column * (cell + GAP), top + HEADING + row * (cell + GAP)))
