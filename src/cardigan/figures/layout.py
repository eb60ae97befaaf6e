"""The layout of a run's sample sheet: generated grid, bar, real grid. Does not import torch."""

import math
from dataclasses import dataclass

GAP = 2
"""Pixels between images."""
DIVIDER = 8
"""Pixels between the two grids."""


@dataclass(frozen=True)
class GridLayout:
    """A sheet of `num_images` generated images and as many real ones, each `height` x `width`."""

    num_images: int
    height: int
    width: int

    @property
    def columns(self) -> int:
        return math.ceil(math.sqrt(self.num_images))

    @property
    def rows(self) -> int:
        return math.ceil(self.num_images / self.columns)

    @property
    def real_left(self) -> int:
        """Left edge of the real grid in pixels."""
        return self.columns * (self.width + GAP) - GAP + DIVIDER

    def corner(self, index: int) -> tuple[int, int]:
        """Return the top and left edge of a tile in its grid, in pixels."""
        return index // self.columns * (self.height + GAP), index % self.columns * (self.width + GAP)
