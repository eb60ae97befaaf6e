"""A run's sample sheets as a film: all generated pictures, or one of them, through time.

Imported when the first one is asked for, since it brings torch.
"""

from collections.abc import Mapping

import torch

from cardigan.errors import CardiganError
from cardigan.figures.film import KINDS, film
from cardigan.run.directory import RunDirectory
from cardigan.studio import asking, sheets
from cardigan.studio.reading import Reading
from cardigan.studio.reading import sheets as sheets_of

MAX_FRAMES, MAX_PIXELS = 240, 40_000_000
"""The most frames, and the most pixels over all of them: a film of large sheets has fewer."""


def sheets_film(reading: Reading, run: RunDirectory, query: Mapping[str, str]) -> tuple[bytes, str]:
    """Return the film and its kind."""
    tile = asking.optional(query, "tile", 0, 4_095)
    fps, kind = asking.real(query, "fps", 8, 0.5, 60), asking.one_of(query, "format", "webp", KINDS)
    layout, found = reading.layout(run, reading.config(run)), sheets_of(run)
    if not found:
        raise CardiganError("This run has no sample sheets yet.")
    size = layout.width * layout.height * (layout.columns * layout.rows if tile is None else 1)
    moments = sheets.evenly(found, max(2, min(MAX_FRAMES, MAX_PIXELS // size)))
    paths = [reading.folder.file(run, run.sample(seen), f"sample sheet at {seen:,} images") for seen in moments]
    frames = sheets.frames(paths, layout, tile)
    return film(torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous(), fps, kind), kind
