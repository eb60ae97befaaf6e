"""Animations of a run's sample sheets over training: all generated images, or one tile.

Imported on first use, because it imports torch.
"""

from collections.abc import Mapping

import torch

from cardigan.errors import CardiganError
from cardigan.figures.animation import FORMATS, encode_animation
from cardigan.run.directory import RunDirectory
from cardigan.studio import query_params, sample_sheets
from cardigan.studio.run_reader import RunReader, sheet_images_seen

MAX_FRAMES, MAX_PIXELS = 240, 40_000_000
"""Maximum number of frames, and of pixels over all frames. Large sheets get fewer frames."""


def sheets_animation(run_reader: RunReader, run: RunDirectory, query: Mapping[str, str]) -> tuple[bytes, str]:
    """Return the animation and its format."""
    tile = query_params.optional_integer(query, "tile", 0, 4_095)
    fps, format = query_params.number(query, "fps", 8, 0.5, 60), query_params.choice(query, "format", "webp", FORMATS)
    layout, available = run_reader.layout(run, run_reader.config(run)), sheet_images_seen(run)
    if not available:
        raise CardiganError("This run has no sample sheets yet.")
    pixels_per_frame = layout.width * layout.height * (layout.columns * layout.rows if tile is None else 1)
    chosen_images_seen = sample_sheets.evenly_spaced(available, max(2, min(MAX_FRAMES, MAX_PIXELS // pixels_per_frame)))
    paths = [
        run_reader.folder.file(run, run.sample_path(images_seen), f"sample sheet at {images_seen:,} images")
        for images_seen in chosen_images_seen
    ]
    frames = sample_sheets.animation_frames(paths, layout, tile)
    return encode_animation(torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous(), fps, format), format
