"""Tiles of a run's sample sheets over training, as a row of images or as animation frames."""

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cardigan.errors import CardiganError
from cardigan.figures.layout import DIVIDER, GAP, GridLayout

MAX_SHEET_PIXELS = 64_000_000
"""Maximum size of a sheet."""
MAX_TILE_HISTORY = 64
CACHE_BYTES = 96 << 20


def evenly_spaced(items: Sequence[int], count: int) -> list[int]:
    """Return at most `count` evenly spaced items, including the first and the last."""
    if len(items) <= count:
        return list(items)
    return [items[round(index * (len(items) - 1) / (count - 1))] for index in range(count)]


class SheetCache:
    """Cache of decoded sheets, so that the history of another tile is ready at once. Thread-safe."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._sheets: OrderedDict[tuple[Path, int], np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: Path, layout: GridLayout) -> np.ndarray:
        """Return the generated half of a sheet."""
        key = path, path.stat().st_mtime_ns
        with self._lock:
            cached = self._sheets.get(key)
            if cached is not None:
                self._sheets.move_to_end(key)
                return cached
        sheet = generated_half(read_sheet(path, layout), layout).copy()
        with self._lock:
            self._sheets[key] = sheet
            while sum(entry.nbytes for entry in self._sheets.values()) > self._max_bytes:
                self._sheets.popitem(last=False)
        return sheet


def read_sheet(path: Path, layout: GridLayout) -> np.ndarray:
    """Return a sheet as uint8 [height, width, channels]. Raises CardiganError if it is damaged or too small."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if image.width * image.height > MAX_SHEET_PIXELS:
                raise CardiganError(
                    f"{path.name} has {image.width:,} x {image.height:,} pixels, which is too large for a sample sheet."
                )
            pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CardiganError(f"The sample sheet {path.name} is damaged or missing.") from error
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    min_size = layout.rows * (layout.height + GAP) - GAP, layout.real_left + layout.columns * (layout.width + GAP) - GAP
    if pixels.shape[0] < min_size[0] or pixels.shape[1] < min_size[1]:
        raise CardiganError(
            f"The sample sheet {path.name} has {pixels.shape[1]} x {pixels.shape[0]} pixels, too few for its layout."
        )
    return pixels


def crop_tile(sheet: np.ndarray, layout: GridLayout, tile: int, real: bool = False) -> np.ndarray:
    """Return one generated or real image of a sheet. Raises CardiganError if the tile is out of range."""
    if not 0 <= tile < layout.num_images:
        raise CardiganError(f"tile is {tile}: expected 0..{layout.num_images - 1}.")
    top, left = layout.corner(tile)
    left += layout.real_left if real else 0
    return sheet[top : top + layout.height, left : left + layout.width]


def crop_tiles(sheet: np.ndarray, layout: GridLayout, real: bool) -> np.ndarray:
    """Return all generated or real images of a sheet, uint8 [count, height, width, channels]."""
    return np.stack([crop_tile(sheet, layout, tile, real) for tile in range(layout.num_images)])


def generated_half(sheet: np.ndarray, layout: GridLayout) -> np.ndarray:
    """Return a sheet without its real images and the divider."""
    return sheet[:, : layout.real_left - DIVIDER]


def tile_history_png(sheet_cache: SheetCache, paths: Sequence[Path], layout: GridLayout, tile: int) -> bytes:
    """Return one tile over training as a PNG, from left to right."""
    tiles = [crop_tile(sheet_cache.get(path, layout), layout, tile) for path in paths]
    height, width, channels = tiles[0].shape
    row = np.zeros((height, len(tiles) * (width + GAP) - GAP, channels), dtype=np.uint8)
    for index, image in enumerate(tiles):
        row[:, index * (width + GAP) : index * (width + GAP) + width] = image
    buffer = io.BytesIO()
    Image.fromarray(row[:, :, 0] if channels == 1 else row).save(buffer, format="PNG")
    return buffer.getvalue()


def animation_frames(paths: Sequence[Path], layout: GridLayout, tile: int | None) -> np.ndarray:
    """Return the generated half of each sheet, or one of its tiles, as frames: uint8 [n, height, width, channels]."""
    sheets = (read_sheet(path, layout) for path in paths)
    return np.stack(
        [generated_half(sheet, layout) if tile is None else crop_tile(sheet, layout, tile) for sheet in sheets]
    )
