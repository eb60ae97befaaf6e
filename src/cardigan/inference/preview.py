"""Notebook previews of a model or a run: an image grid with a caption. Writes no file."""

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
"""Smaller images are upscaled by an integer factor."""


def model_preview(snapshot: Snapshot) -> bytes:
    """Return sixteen images of seed 0 as a PNG grid. A class-conditional model cycles through its classes."""
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
    """Return a run's latest sample sheet as a PNG, or None if there is none yet."""
    sheet = RunDirectory(path).latest_sample()
    return None if sheet is None else sheet.read_bytes()


def figure_html(sheet: bytes | None, caption: str) -> str:
    """Return an image and its caption as self-contained HTML."""
    caption_html = html.escape(caption)
    image_html = ""
    if sheet:
        source = f"data:image/png;base64,{base64.b64encode(sheet).decode()}"
        image_html = f'<img src="{source}" alt="{caption_html}" style="max-width:100%">'
    return f'<figure style="margin:0">{image_html}<figcaption><code>{caption_html}</code></figcaption></figure>'
