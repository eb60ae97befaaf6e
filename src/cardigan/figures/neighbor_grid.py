"""Pictures beside their nearest neighbours: what to look at when a number says that samples were copied.

Writes no file.
"""

import torch

from cardigan.figures.grid import GridImage
from cardigan.figures.layout import DIVIDER, GAP
from cardigan.shapes import Pixels

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
