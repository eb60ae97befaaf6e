"""The sample sheets of a report: generated images at a few times, and the real images once."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from cardigan.figures.layout import DIVIDER, GAP, GridLayout
from cardigan.run.directory import RunDirectory

MAX_SAMPLE_SHEETS = 6


def sample_sheets(run: RunDirectory) -> list[Path]:
    """Return the last sample sheet and a few earlier ones, each at about half the images of the next, newest first."""
    sheets = sorted(run.samples.glob("[0-9]*.png"), key=_images_seen, reverse=True)
    if len(sheets) <= MAX_SAMPLE_SHEETS:
        return sheets
    targets = [_images_seen(sheets[0]) / 2**step for step in range(MAX_SAMPLE_SHEETS)]
    nearest = {min(sheets, key=lambda path: abs(_images_seen(path) - target)) for target in targets}
    return sorted(nearest, key=_images_seen, reverse=True)


def sheet_halves(path: Path, layout: GridLayout) -> tuple[bytes, bytes | None]:
    """Return the generated and the real half of a sheet as PNGs. A sheet of another layout is not split."""
    with Image.open(path, formats=["PNG"]) as sheet:
        width = layout.columns * (layout.width + GAP) - GAP
        height = layout.rows * (layout.height + GAP) - GAP
        if sheet.size != (2 * width + DIVIDER, height):
            return path.read_bytes(), None
        halves = [sheet.crop((left, 0, left + width, height)) for left in (0, layout.real_left)]
    return _png(halves[0]), _png(halves[1])


def num_generated(num_samples: Sequence[object], default: int) -> int:
    """Return how many generated images a sheet has, from the journal's samples events."""
    counts = [count for count in num_samples if isinstance(count, int) and not isinstance(count, bool) and count > 0]
    return counts[-1] if counts else default


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _images_seen(path: Path) -> int:
    return int(path.stem)
