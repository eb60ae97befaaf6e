"""Pictures beside their nearest neighbours: what to look at when a number says that samples were copied.

Writes no file.
"""

import torch

from cardigan.figures.grid import Sheet
from cardigan.figures.layout import BAR, GAP
from cardigan.shapes import Pixels

PAIRS_A_ROW = 8


def neighbour_sheet(samples: Pixels, neighbours: Pixels) -> Sheet:
    """Return pairs, each a sample on the left of its neighbour, eight pairs a row; samples and neighbours have equal shapes."""
    count, channels, height, width = samples.shape
    columns = min(count, PAIRS_A_ROW)
    rows = -(-count // columns)
    pair = 2 * width + GAP
    sheet = torch.full((channels, rows * (height + GAP) - GAP, columns * (pair + BAR) - BAR), 128, dtype=torch.uint8)
    for index in range(count):
        top, left = index // columns * (height + GAP), index % columns * (pair + BAR)
        sheet[:, top : top + height, left : left + width] = samples[index]
        sheet[:, top : top + height, left + width + GAP : left + pair] = neighbours[index]
    return sheet
