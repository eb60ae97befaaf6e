"""Where each picture lies on a run's sample sheet: generated grid, bar, real grid.

Imports nothing heavy, so that readers without torch can use it.
"""

import math
from dataclasses import dataclass

GAP = 2
"""Pixels between pictures."""
DIVIDER = 8
"""Pixels between the two grids."""


@dataclass(frozen=True)
class GridLayout:
    """A sheet of `num_images` generated pictures of `height` x `width` beside as many real ones."""

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
        """Where the real grid begins, in pixels from the left."""
        return self.columns * (self.width + GAP) - GAP + DIVIDER

    def corner(self, index: int) -> tuple[int, int]:
        """Return where a tile of a grid begins, in pixels from its top and its left."""
        return index // self.columns * (self.height + GAP), index % self.columns * (self.width + GAP)
