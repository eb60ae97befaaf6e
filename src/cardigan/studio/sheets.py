"""A run's sample sheets through time: tiles cut out, side by side, or one after another.

Knows where tiles lie; does not know generators.
"""

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cardigan.errors import CardiganError
from cardigan.figures.layout import BAR, GAP, SheetLayout

MAX_PIXELS = 64_000_000
"""Of a sheet that is opened."""
MAX_STRIP = 64
KEPT_BYTES = 96 << 20


def evenly(items: Sequence[int], count: int) -> list[int]:
    """Return at most `count` of the items at even distances, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(place * (len(items) - 1) / (count - 1))] for place in range(count)]


class Opened:
    """The sheets that were opened last, so that another tile's life is shown at once; may be asked from several threads."""

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[tuple[Path, int], np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def sheet(self, path: Path, layout: SheetLayout) -> np.ndarray:
        """Return the generated part of a sheet."""
        key = path, path.stat().st_mtime_ns
        with self._lock:
            known = self._kept.get(key)
            if known is not None:
                self._kept.move_to_end(key)
                return known
        sheet = generated_part(opened_sheet(path, layout), layout).copy()
        with self._lock:
            self._kept[key] = sheet
            while sum(kept.nbytes for kept in self._kept.values()) > self._most_bytes:
                self._kept.popitem(last=False)
        return sheet


def opened_sheet(path: Path, layout: SheetLayout) -> np.ndarray:
    """Return a sheet as uint8 [height, width, channels]; raises CardiganError for one that is damaged, or of another layout."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise CardiganError(f"{path.name} has {image.width:,} x {image.height:,} pixels, which is no sample sheet of cardigan's.")
            values = np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CardiganError(f"The sample sheet {path.name} is damaged, or gone.") from error
    values = values[:, :, None] if values.ndim == 2 else values
    needed = layout.rows * (layout.height + GAP) - GAP, layout.real_left + layout.columns * (layout.width + GAP) - GAP
    if values.shape[0] < needed[0] or values.shape[1] < needed[1]:
        raise CardiganError(f"The sample sheet {path.name} has {values.shape[1]} x {values.shape[0]} pixels: its tiles cannot be told apart.")
    return values


def tile_of(sheet: np.ndarray, layout: SheetLayout, tile: int, real: bool = False) -> np.ndarray:
    """Return one generated picture of a sheet, or one real one; raises CardiganError for a tile that it does not have."""
    if not 0 <= tile < layout.count:
        raise CardiganError(f"tile is {tile}: expected 0..{layout.count - 1}.")
    top, left = layout.corner(tile)
    left += layout.real_left if real else 0
    return sheet[top : top + layout.height, left : left + layout.width]


def tiles_of(sheet: np.ndarray, layout: SheetLayout, real: bool) -> np.ndarray:
    """Return every generated or real picture of a sheet, uint8 [count, height, width, channels]."""
    return np.stack([tile_of(sheet, layout, tile, real) for tile in range(layout.count)])


def generated_part(sheet: np.ndarray, layout: SheetLayout) -> np.ndarray:
    """Return a sheet without its real pictures and the bar before them."""
    return sheet[:, : layout.real_left - BAR]


def strip(opened: Opened, paths: Sequence[Path], layout: SheetLayout, tile: int) -> bytes:
    """Return one picture's life as a PNG, from left to right."""
    tiles = [tile_of(opened.sheet(path, layout), layout, tile) for path in paths]
    height, width, channels = tiles[0].shape
    row = np.zeros((height, len(tiles) * (width + GAP) - GAP, channels), dtype=np.uint8)
    for place, picture in enumerate(tiles):
        row[:, place * (width + GAP) : place * (width + GAP) + width] = picture
    buffer = io.BytesIO()
    Image.fromarray(row[:, :, 0] if channels == 1 else row).save(buffer, format="PNG")
    return buffer.getvalue()


def frames(paths: Sequence[Path], layout: SheetLayout, tile: int | None) -> np.ndarray:
    """Return the generated part of each sheet, or one of its tiles, as the frames of a film, uint8 [n, height, width, channels]."""
    sheets = (opened_sheet(path, layout) for path in paths)
    return np.stack([generated_part(sheet, layout) if tile is None else tile_of(sheet, layout, tile) for sheet in sheets])
