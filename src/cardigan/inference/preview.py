"""What a notebook shows of a model or a run: a small sheet of pictures and a line below it. Writes no file."""

import base64
import html
from pathlib import Path

import torch

from cardigan.figures.animation import upscale
from cardigan.figures.grid import make_grid, png_bytes
from cardigan.latents.sampling import sample_latents
from cardigan.models.sampling import generate_pixels, sample_keys
from cardigan.models.snapshot import Snapshot
from cardigan.run.directory import RunDirectory
from cardigan.shapes import Labels

NUM_PREVIEW_IMAGES = 16
MIN_PREVIEW_SIDE = 64
"""Pictures smaller than this are enlarged by a whole factor, so that they can be seen."""


def model_preview(snapshot: Snapshot) -> bytes:
    """Return the first sixteen pictures of seed 0 as a PNG, of one class after another where there are classes."""
    z = sample_latents(
        snapshot.config.latent.distribution, sample_keys(NUM_PREVIEW_IMAGES, 0), snapshot.config.latent.size
    )
    return png_bytes(
        make_grid(
            upscale(
                generate_pixels(snapshot.generator, z, _cycle_labels(snapshot.spec.num_classes), NUM_PREVIEW_IMAGES),
                MIN_PREVIEW_SIDE,
            )
        )
    )


def _cycle_labels(num_classes: int) -> Labels | None:
    return torch.arange(NUM_PREVIEW_IMAGES) % num_classes if num_classes else None


def run_preview(path: Path) -> bytes | None:
    """Return the latest sheet of a run, generated pictures beside real ones, as a PNG; None before the first."""
    sheet = RunDirectory(path).latest_sample()
    return None if sheet is None else sheet.read_bytes()


def figure_html(sheet: bytes | None, caption: str) -> str:
    """Return a sheet and a line below it as HTML that needs no other file."""
    caption_html = html.escape(caption)
    image_html = (
        f'<img src="data:image/png;base64,{base64.b64encode(sheet).decode()}" alt="{caption_html}" style="max-width:100%">'
        if sheet
        else ""
    )
    return f'<figure style="margin:0">{image_html}<figcaption><code>{caption_html}</code></figcaption></figure>'
