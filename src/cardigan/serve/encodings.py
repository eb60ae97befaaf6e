"""Pictures as the bytes of an answer: which kind is wanted, and how each is made.

Knows media types; not who asks.
"""

import base64
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from cardigan.errors import CardiganError
from cardigan.figures.grid import Sheet, png, tile
from cardigan.figures.layout import GAP, SheetLayout
from cardigan.serve.asking import Order
from cardigan.shapes import Labels, Pixels

EFFORT = 1
"""How hard PNGs are pressed: half again as fast as the usual 6, a twentieth larger."""
MAX_WEBP = 16_383
"""Pixels of a side, by the format."""


class NotAcceptable(CardiganError):
    """None of the kinds that are asked for can be given."""


@dataclass(frozen=True)
class Pictures:
    """What was drawn, with what is to be told of it."""

    pixels: Pixels
    labels: Labels | None
    order: Order

    @property
    def label_list(self) -> list[int] | None:
        return None if self.labels is None else self.labels.tolist()


def as_png(pictures: Pictures) -> bytes:
    """Return the picture, or all of them side by side as `cardigan sample` lays them out."""
    return png(tile(pictures.pixels), EFFORT)


def as_webp(pictures: Pictures) -> bytes:
    """Return the same as WebP, lossless."""
    return _webp(tile(pictures.pixels))


def as_zip(pictures: Pictures) -> bytes:
    """Return one PNG for each picture, and index.json with their seeds and labels."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for number, pixels in enumerate(pictures.pixels):
            archive.writestr(f"{number:06d}.png", png(pixels, EFFORT))
        archive.writestr("index.json", json.dumps(_told(pictures)))
    return buffer.getvalue()


def as_npz(pictures: Pictures) -> bytes:
    """Return arrays for `np.load`: images uint8 [N, height, width, channels], and labels and seeds where there are any; not compressed."""
    arrays: dict[str, np.ndarray] = {"images": pictures.pixels.permute(0, 2, 3, 1).contiguous().numpy()}
    if pictures.labels is not None:
        arrays["labels"] = pictures.labels.numpy()
    if pictures.order.keys is not None:
        seeds = pictures.order.seeds
        arrays["seeds" if seeds is not None else "seed"] = np.array(pictures.order.seed if seeds is None else seeds, dtype=np.int64)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType] - numpy's stubs take the names for options
    return buffer.getvalue()


def as_json(pictures: Pictures) -> bytes:
    """Return {"images": [base64 of a PNG, ...]} with seeds and labels."""
    images = [base64.b64encode(png(pixels, EFFORT)).decode() for pixels in pictures.pixels]
    return json.dumps({"images": images, **_told(pictures)}, separators=(",", ":")).encode()


KINDS: dict[str, Callable[[Pictures], bytes]] = {
    "image/png": as_png,
    "image/webp": as_webp,
    "application/json": as_json,
    "application/x-npz": as_npz,
    "application/zip": as_zip,
}
"""By media type, the usual one first."""


@lru_cache(256)
def wanted(accept: str | None) -> str:
    """Return the kind that an Accept header likes best; of equals the first of KINDS. Raises NotAcceptable."""
    best, kind = 0.0, ""
    ranges = [_range(part) for part in (accept or "*/*").split(",")]
    for name in KINDS:
        quality = max((quality for _, quality in sorted(_fits(name, ranges))[-1:]), default=0.0)
        if quality > best:
            best, kind = quality, name
    if not kind:
        raise NotAcceptable(f"Accept is {(accept or '')[:80]!r}: expected one of {', '.join(KINDS)}.")
    return kind


def check_size(kind: str, order: Order, height: int, width: int) -> None:
    """Raise NotAcceptable for a sheet that the format cannot hold."""
    layout = SheetLayout(order.count, height, width)
    if kind == "image/webp" and max(layout.columns * (width + GAP), layout.rows * (height + GAP)) > MAX_WEBP:
        raise NotAcceptable(f"A sheet of {order.count} pictures is larger than WebP can be: ask for fewer, or for image/png.")


def _fits(name: str, ranges: list[tuple[str, float]]) -> list[tuple[int, float]]:
    """Return how exactly each range names this kind, and how much it likes it."""
    exactness = {name: 2, f"{name.partition('/')[0]}/*": 1, "*/*": 0}
    return [(exactness[kind], quality) for kind, quality in ranges if kind in exactness]


def _range(part: str) -> tuple[str, float]:
    kind, *parameters = (word.strip().lower() for word in part.split(";"))
    quality = next((word[2:] for word in parameters if word.startswith("q=")), "1")
    try:
        return kind, min(max(float(quality), 0.0), 1.0)
    except ValueError:
        return kind, 0.0


def _told(pictures: Pictures) -> dict[str, Any]:
    order = pictures.order
    return {"seed": order.seed, "seeds": order.seeds, "labels": pictures.label_list, "truncation": order.truncation}


def _webp(sheet: Sheet) -> bytes:
    picture = (sheet if len(sheet) in (1, 3, 4) else sheet[:1]).permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).save(buffer, format="WEBP", lossless=True, exact=True, method=0)
    return buffer.getvalue()
