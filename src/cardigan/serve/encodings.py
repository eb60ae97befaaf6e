"""Encodes generated images as response content, and negotiates its media type."""

import base64
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from cardigan.errors import CardiganError
from cardigan.figures.c2pa_manifest import SigningKey, with_manifest
from cardigan.figures.grid import GridImage, make_grid, pillow_image, png_bytes
from cardigan.figures.layout import GAP, GridLayout
from cardigan.figures.marking import Mark
from cardigan.serve.sample_request import SampleRequest
from cardigan.shapes import Labels, Pixels

PNG_COMPRESSION_LEVEL = 1
"""1.5 times as fast as the default level 6, with files 5 % larger."""
MAX_WEBP_SIDE = 16_383
"""Maximum side in pixels of the format."""


class NotAcceptable(CardiganError):
    """No media type of the Accept header is available."""


@dataclass(frozen=True)
class SampleResponse:
    """Generated images with their labels and request."""

    pixels: Pixels
    labels: Labels | None
    request: SampleRequest
    model: str = ""
    """SHA-256 of the model's weights, for the marks in images. Empty: no marks."""
    signing: SigningKey | None = None
    """Signs the images. None: they are not signed."""

    def mark(self, number: int | None = None) -> Mark | None:
        """Return the mark of one image, or of all together."""
        if not self.model:
            return None
        request, count = self.request, len(self.pixels)
        if request.keys is None:
            return Mark(self.model, "latents given by the client")
        more = f", truncation {request.truncation:g}" if request.truncation != 1 else ""
        if request.seeds is not None:
            seeds = request.seeds if number is None else [request.seeds[number]]
            return Mark(self.model, f"{'seeds' if number is None else 'seed'} {', '.join(map(str, seeds))}{more}")
        images = f"images 0 to {count - 1}" if number is None else f"image {number}"
        return Mark(self.model, f"seed {request.seed}, {images}{more}")

    def png(self, image: GridImage, number: int | None = None) -> bytes:
        """Return one image, or the grid of all, as a PNG with its mark and its signature, if it has them."""
        mark = self.mark(number)
        return with_manifest(png_bytes(image, PNG_COMPRESSION_LEVEL, mark), "image/png", mark, self.signing)

    @property
    def label_list(self) -> list[int] | None:
        return None if self.labels is None else self.labels.tolist()


def encode_png(response: SampleResponse) -> bytes:
    """Return one image, or a grid of all with the layout of `cardigan sample`."""
    return response.png(make_grid(response.pixels))


def encode_webp(response: SampleResponse) -> bytes:
    """Return the same as lossless WebP."""
    mark = response.mark()
    return with_manifest(_webp_bytes(make_grid(response.pixels), mark), "image/webp", mark, response.signing)


def encode_zip(response: SampleResponse) -> bytes:
    """Return one PNG per image, and index.json with their seeds and labels."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for number, pixels in enumerate(response.pixels):
            archive.writestr(f"{number:06d}.png", response.png(pixels, number))
        archive.writestr("index.json", json.dumps(_metadata(response)))
    return buffer.getvalue()


def encode_npz(response: SampleResponse) -> bytes:
    """Return uncompressed arrays for `np.load`: images uint8 [N, height, width, channels], and any labels and seeds."""
    arrays: dict[str, np.ndarray] = {"images": response.pixels.permute(0, 2, 3, 1).contiguous().numpy()}
    if response.labels is not None:
        arrays["labels"] = response.labels.numpy()
    if response.request.keys is not None:
        seeds = response.request.seeds
        arrays["seeds" if seeds is not None else "seed"] = np.array(
            response.request.seed if seeds is None else seeds, dtype=np.int64
        )
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType] - numpy's stubs treat the names as options
    return buffer.getvalue()


def encode_json(response: SampleResponse) -> bytes:
    """Return {"images": [base64 PNG, ...]} with seeds and labels."""
    images = [base64.b64encode(response.png(pixels, number)).decode() for number, pixels in enumerate(response.pixels)]
    return json.dumps({"images": images, **_metadata(response)}, separators=(",", ":")).encode()


ENCODERS: dict[str, Callable[[SampleResponse], bytes]] = {
    "image/png": encode_png,
    "image/webp": encode_webp,
    "application/json": encode_json,
    "application/x-npz": encode_npz,
    "application/zip": encode_zip,
}
"""By media type, the default first."""


@lru_cache(256)
def negotiate_media_type(accept: str | None) -> str:
    """Return the media type with the highest quality in an Accept header; ties go to the first of ENCODERS.

    Raises NotAcceptable.
    """
    best_quality, media_type = 0.0, ""
    ranges = [_parse_media_range(part) for part in (accept or "*/*").split(",")]
    for name in ENCODERS:
        quality = max((quality for _, quality in sorted(_matching_ranges(name, ranges))[-1:]), default=0.0)
        if quality > best_quality:
            best_quality, media_type = quality, name
    if not media_type:
        raise NotAcceptable(f"Accept is {(accept or '')[:80]!r}: expected one of {', '.join(ENCODERS)}.")
    return media_type


def check_sheet_size(media_type: str, request: SampleRequest, height: int, width: int) -> None:
    """Raise NotAcceptable for a grid that is too large for the format."""
    layout = GridLayout(request.count, height, width)
    if media_type == "image/webp" and max(layout.columns * (width + GAP), layout.rows * (height + GAP)) > MAX_WEBP_SIDE:
        raise NotAcceptable(f"A grid of {request.count} images is too large for WebP: request fewer, or image/png.")


def _matching_ranges(name: str, ranges: list[tuple[str, float]]) -> list[tuple[int, float]]:
    """Return (specificity, quality) of each range that matches this media type."""
    specificity = {name: 2, f"{name.partition('/')[0]}/*": 1, "*/*": 0}
    return [(specificity[media_type], quality) for media_type, quality in ranges if media_type in specificity]


def _parse_media_range(part: str) -> tuple[str, float]:
    media_type, *parameters = (word.strip().lower() for word in part.split(";"))
    quality = next((word[2:] for word in parameters if word.startswith("q=")), "1")
    try:
        return media_type, min(max(float(quality), 0.0), 1.0)
    except ValueError:
        return media_type, 0.0


def _metadata(response: SampleResponse) -> dict[str, Any]:
    request = response.request
    return {
        "seed": request.seed,
        "seeds": request.seeds,
        "labels": response.label_list,
        "truncation": request.truncation,
    }


def _webp_bytes(sheet: GridImage, mark: Mark | None) -> bytes:
    buffer = io.BytesIO()
    image = pillow_image(sheet.permute(1, 2, 0).numpy())
    xmp = {} if mark is None else {"xmp": mark.xmp().encode()}
    image.save(buffer, format="WEBP", lossless=True, exact=True, method=0, **xmp)
    return buffer.getvalue()
