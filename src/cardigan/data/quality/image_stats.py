"""Statistics of one decoded image: size, color mode, transparency, blankness, and hashes to find duplicates.

Does not know the other images.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from cardigan.data.decoding import (
    ALPHA_MODES,
    EXIF_ORIENTATION,
    HIGH_BIT_DEPTH_MODES,
    as_16_bits,
    conversion_note,
    num_channels,
    open_image,
    to_uint8,
)
from cardigan.data.quality.near_duplicates import thumbnail
from cardigan.data.reader import Reader, StoredImage, UnreadableImage

BLANK_STD = 2.0
"""An image is blank below this standard deviation of its gray levels (0 to 255)."""
MODE_NAMES = {
    "1": "1-bit",
    "L": "gray",
    "La": "gray",
    "LA": "gray",
    "P": "palette",
    "PA": "palette",
    "RGBa": "RGBA",
    "I": "32-bit",
    "F": "32-bit",
}


@dataclass(frozen=True)
class ImageStats:
    """One image, decoded once. Height and width are those of the upright image."""

    index: int
    num_bytes: int
    format: str
    """Pillow's name of the format, or "array"."""
    color_mode: str
    """The stored color mode: "RGB", "gray", "palette", "CMYK", "16-bit", "RGBA, transparent", "RGBA, opaque", ..."""
    conversion: str
    """What the conversion to 8-bit gray, RGB or RGBA loses; "" for a lossless conversion."""
    height: int
    width: int
    exif_rotated: bool
    """Whether its EXIF orientation rotates or flips it."""
    channels: int
    """The channels that it needs: 1 for gray, 3 for color, 4 for transparent pixels."""
    gray_std: float
    """Standard deviation of the gray levels."""
    content_hash: bytes
    pixel_hash: bytes
    thumbnail: np.ndarray

    @property
    def blank(self) -> bool:
        return self.gray_std < BLANK_STD


@dataclass(frozen=True)
class InspectionFailure:
    """An image that cannot be used, and why."""

    index: int
    reason: str


def inspect_entry(reader: Reader, index: int, max_pixels: int) -> ImageStats | InspectionFailure:
    """Return the statistics of an entry, or why it is unreadable."""
    try:
        return inspect_image(reader.read(index), index, max_pixels)
    except UnreadableImage as error:
        return InspectionFailure(index, str(error))


def inspect_image(stored_image: StoredImage, index: int, max_pixels: int) -> ImageStats:
    """Return the statistics of a stored image; raises UnreadableImage if it is unusable."""
    with open_image(stored_image, max_pixels) as image:
        format, conversion = image.format or "array", conversion_note(image)
        exif_rotated = image.getexif().get(EXIF_ORIENTATION, 1) in range(2, 9)
        color_mode, simplified = _color_mode(image), simplify_mode(ImageOps.exif_transpose(as_16_bits(image)))
    visible, gray_std = _visible_image(simplified)
    return ImageStats(
        index,
        len(stored_image) if isinstance(stored_image, bytes) else stored_image.nbytes,
        format,
        _describe_mode(color_mode, simplified),
        conversion,
        simplified.height,
        simplified.width,
        exif_rotated,
        len(simplified.getbands()),
        gray_std,
        hashlib.blake2b(
            stored_image if isinstance(stored_image, bytes) else np.ascontiguousarray(stored_image).data, digest_size=16
        ).digest(),
        _pixel_hash(simplified),
        thumbnail(visible),
    )


def _color_mode(image: Image.Image) -> tuple[str, bool]:
    """Return an image's stored color mode, and whether it may be transparent."""
    mode = "16-bit" if image.mode.startswith("I;") else MODE_NAMES.get(image.mode, image.mode)
    return mode, image.mode in ALPHA_MODES or "transparency" in image.info


def _describe_mode(color_mode: tuple[str, bool], simplified: Image.Image) -> str:
    mode, may_have_alpha = color_mode
    return f"{mode}, {'transparent' if simplified.mode == 'RGBA' else 'opaque'}" if may_have_alpha else mode


def simplify_mode(image: Image.Image) -> Image.Image:
    """Return an image as the first of L, RGB, RGBA that loses nothing, so that the stored mode makes no difference."""
    if image.mode in HIGH_BIT_DEPTH_MODES:
        image = Image.fromarray(to_uint8(np.array(image)))
    if num_channels(image) == 4:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            return image
    elif image.mode in {"1", "L"}:
        return image.convert("L")
    image = image.convert("RGB")
    return image.getchannel("R") if _is_gray(np.asarray(image)) else image


def _is_gray(pixels: np.ndarray) -> bool:
    """Return whether all channels are equal. A few pixels rule out most color images."""
    return all(bool((sample[:, :, :1] == sample[:, :, 1:]).all()) for sample in (pixels[::16, ::16], pixels))


def _pixel_hash(simplified: Image.Image) -> bytes:
    pixels = np.asarray(simplified)
    if simplified.mode == "RGBA":
        pixels = np.where(pixels[:, :, 3:] == 0, np.uint8(0), pixels)  # the color there is invisible
    return hashlib.blake2b(
        pixels.data, digest_size=16, person=f"{simplified.width}x{simplified.height}".encode()[:16]
    ).digest()


def _visible_image(simplified: Image.Image) -> tuple[Image.Image, float]:
    """Return an opaque image and the standard deviation of its gray levels.

    A transparent image is composed over white or black, whichever gives the larger deviation.
    """
    if simplified.mode != "RGBA":
        return simplified, _gray_std(simplified)
    backgrounds = (
        Image.alpha_composite(Image.new("RGBA", simplified.size, background), simplified).convert("RGB")
        for background in ("white", "black")
    )
    return max(((image, _gray_std(image)) for image in backgrounds), key=lambda found: found[1])


def _gray_std(image: Image.Image) -> float:
    counts, levels = np.array(image.convert("L").histogram(), np.float64), np.arange(256)
    mean = (counts * levels).sum() / counts.sum()
    return float(np.sqrt((counts * (levels - mean) ** 2).sum() / counts.sum()))
