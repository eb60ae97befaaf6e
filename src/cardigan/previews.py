"""What a notebook shows of a model or a run: a small sheet of pictures and a line below it. Writes no file."""

import base64
import html
from pathlib import Path

import torch

from cardigan.figures.film import enlarged
from cardigan.figures.grid import png, tile
from cardigan.latents import sample_latents
from cardigan.run.directory import RunDirectory
from cardigan.run.snapshot import Snapshot, draw_pixels, numbered
from cardigan.shapes import Labels

PICTURES = 16
SIDE = 64
"""Pictures smaller than this are enlarged by a whole factor, so that they can be seen."""


def model_sheet(snapshot: Snapshot) -> bytes:
    """Return the first sixteen pictures of seed 0 as a PNG, of one class after another where there are classes."""
    z = sample_latents(snapshot.config.latent.distribution, numbered(PICTURES, 0), snapshot.config.latent.size)
    return png(tile(enlarged(draw_pixels(snapshot.generator, z, _classes_in_turn(snapshot.spec.classes), PICTURES), SIDE)))


def _classes_in_turn(classes: int) -> Labels | None:
    return torch.arange(PICTURES) % classes if classes else None


def run_sheet(path: Path) -> bytes | None:
    """Return the latest sheet of a run, generated pictures beside real ones, as a PNG; None before the first."""
    sheet = RunDirectory(path).latest_sample()
    return None if sheet is None else sheet.read_bytes()


def figure(sheet: bytes | None, caption: str) -> str:
    """Return a sheet and a line below it as HTML that needs no other file."""
    words = html.escape(caption)
    picture = f'<img src="data:image/png;base64,{base64.b64encode(sheet).decode()}" alt="{words}" style="max-width:100%">' if sheet else ""
    return f'<figure style="margin:0">{picture}<figcaption><code>{words}</code></figcaption></figure>'
