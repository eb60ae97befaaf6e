"""Decoding: from a stored image of any format, mode and size to upright uint8 pixels in the training shape.

Handles one image at a time, without torch. Does not know where images come from or which process runs it.
"""

import io
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cardigan.config_parts import DataConfig
from cardigan.data.reader import StoredImage, UnreadableImage
from cardigan.errors import first_line

PIL_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
HIGH_BIT_DEPTH_MODES = {"I", "I;16", "I;16B", "I;16L", "I;16N", "F"}
ALPHA_MODES = {"RGBA", "LA", "PA", "La", "RGBa"}
EXIF_ORIENTATION = 0x0112
"""The EXIF tag of the orientation."""
DECODE_ERRORS = (
    *(
        OSError,
        SyntaxError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        EOFError,
        ZeroDivisionError,
        OverflowError,
        RuntimeError,
    ),
    *(AttributeError, struct.error),
)
"""Errors that Pillow's decoders raise for truncated or damaged files."""
PIL_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "PPM")
"""Accepted image formats, recognized by content. Pillow knows dozens more; some of them start other programs."""
MAX_FLOAT = 383
"""Maximum of floats from 0 to 255 that overshoot."""
_OPEN_LOCK = threading.Lock()
DRAFT_FACTOR = 2
"""A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if that is still at least this many times the training shape."""


@dataclass(frozen=True)
class DecodeSpec:
    """The training shape, the resize method, and the size limit of the originals."""

    height: int
    width: int
    channels: int
    resize: Literal["crop", "pad", "stretch"]
    max_pixels: int


def decode_spec(data: DataConfig) -> DecodeSpec:
    return DecodeSpec(data.height, data.width, data.channels, data.resize, data.max_pixels)


@contextmanager
def open_image(stored_image: StoredImage, max_pixels: int) -> Iterator[Image.Image]:
    """Yield the image with its header read and, unless it is an array, its pixels not yet decoded.

    Raises UnreadableImage, also inside the block, for content that is not an image, is truncated or damaged, or has
    more than `max_pixels` pixels.
    """
    try:
        with _suppress_warnings():
            image = (
                _read_header(_require_nonempty(stored_image))
                if isinstance(stored_image, bytes)
                else image_from_array(stored_image)
            )
            if image.width * image.height > max_pixels:
                raise UnreadableImage(
                    f"has {image.width:,} x {image.height:,} pixels and data.max_pixels is {max_pixels:,}: "
                    "make it smaller, or raise that setting"
                )
            with image:
                yield image
    except UnidentifiedImageError:
        raise UnreadableImage("is not an image of a known format") from None
    except DECODE_ERRORS as error:
        raise UnreadableImage(f"is damaged ({first_line(error)})") from None
    except MemoryError:
        raise UnreadableImage("does not fit into memory") from None


def _read_header(content: bytes) -> Image.Image:
    """Return an image of any size with its header read. Only `max_pixels` limits it, so that the error names it."""
    with _OPEN_LOCK:
        Image.init()  # what this Pillow was built with
        previous_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(content), formats=[known for known in PIL_FORMATS if known in Image.OPEN])
        finally:
            Image.MAX_IMAGE_PIXELS = previous_limit


@contextmanager
def _suppress_warnings() -> Iterator[None]:
    """Suppress warnings about odd metadata. Main thread only: warning filters apply to the whole process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _require_nonempty(stored_image: bytes) -> bytes:
    if not stored_image:
        raise UnreadableImage("is empty")
    return stored_image


def image_from_array(pixels: np.ndarray) -> Image.Image:
    """Return an array [height, width(, 1, 3 or 4)] of 8 or 16 bits or values 0 to 1 as a Pillow image."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        raise UnreadableImage(f"has the shape {pixels.shape}: expected [height, width] or [height, width, 1, 3 or 4]")
    return Image.fromarray(np.ascontiguousarray(to_uint8(pixels)))


def to_uint8(pixels: np.ndarray) -> np.ndarray:
    """Return values as uint8: 16 bits lose their low byte; values 0 to 1 and booleans are scaled to 0 to 255."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * 255
    if pixels.dtype == np.uint16:
        return (pixels >> 8).astype(np.uint8)
    if np.issubdtype(pixels.dtype, np.floating):
        if not np.isfinite(pixels).all():
            raise UnreadableImage("holds values that are not finite")
        scale = 255 if pixels.size == 0 or pixels.max() <= 1 else 1
        if pixels.size and pixels.max() > MAX_FLOAT:
            raise UnreadableImage(f"holds values up to {pixels.max():g}: expected 0 to 1 or 0 to 255")
        return (pixels * scale).round().clip(0, 255).astype(np.uint8)
    if np.issubdtype(pixels.dtype, np.integer):
        is_16_bit = pixels.size > 0 and pixels.max() > 255
        if pixels.size and pixels.max() > np.iinfo(np.uint16).max:
            raise UnreadableImage(f"holds values up to {pixels.max():,}: expected 8 or 16 bits")
        return (pixels.astype(np.int64) >> (8 if is_16_bit else 0)).clip(0, 255).astype(np.uint8)
    raise UnreadableImage(f"holds values of type {pixels.dtype}: expected 8 or 16 bits, or numbers 0 to 1")


def as_16_bits(image: Image.Image) -> Image.Image:
    """Return a PGM of more than 8 bits in a mode of 16 bits. Pillow scales it to 16 bits in a mode of 32 bits."""
    if image.format != "PPM" or image.mode != "I":
        return image
    return Image.fromarray(np.array(image).astype(np.uint16))


def num_channels(image: Image.Image) -> int:
    """Return the number of channels: 1 for gray, 3 for color, 4 with transparency."""
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        return 4
    return 1 if image.mode in HIGH_BIT_DEPTH_MODES or image.mode in {"L", "1"} else 3


def conversion_note(image: Image.Image) -> str:
    """Return a note on what the conversion to 8-bit gray, RGB or RGBA loses; "" for a lossless conversion."""
    if image.mode in HIGH_BIT_DEPTH_MODES:
        return "more than 8 bits a value, reduced to 8"
    return "" if image.mode in {"L", "1", "RGB", "P"} | ALPHA_MODES else f"{image.mode} converted to RGB"


def to_pixels(image: Image.Image, spec: DecodeSpec) -> np.ndarray:
    """Return an image as uint8 [height, width, channels] in the training shape, rotated upright by its EXIF.

    `resize_image` describes `crop`, `pad` and `stretch`. Without an alpha channel, transparency becomes white.
    With one, the color of fully transparent pixels is set to 0, since it is invisible.
    """
    if image.format == "JPEG":
        image.draft(None, (DRAFT_FACTOR * spec.width, DRAFT_FACTOR * spec.height))
    upright = ImageOps.exif_transpose(as_16_bits(image))
    resized = resize_image(_convert_channels(upright, spec.channels), spec.width, spec.height, spec.resize)
    pixels = np.array(resized).reshape(spec.height, spec.width, spec.channels)
    if spec.channels == 4:
        pixels[pixels[:, :, 3] == 0] = 0
    return pixels


def resize_image(image: Image.Image, width: int, height: int, method: Literal["crop", "pad", "stretch"]) -> Image.Image:
    """Return a decoded image of this width and height, resized bicubically with antialiasing.

    `stretch` changes the aspect ratio. `crop` fills the shape and cuts off the rest, evenly on both sides.
    `pad` shows the whole image and fills the rest with 0 (black, or transparent).
    """
    target_size, source_size = (width, height), image.size
    if source_size == target_size:
        return image
    if method == "stretch":
        return image.resize(target_size, Image.Resampling.BICUBIC)
    scale_x, scale_y = target_size[0] / source_size[0], target_size[1] / source_size[1]
    if method == "crop":
        scale = max(scale_x, scale_y)
        left, top = (source_size[0] - target_size[0] / scale) / 2, (source_size[1] - target_size[1] / scale) / 2
        box = (
            max(0.0, left),
            max(0.0, top),
            min(source_size[0], source_size[0] - left),
            min(source_size[1], source_size[1] - top),
        )
        return image.resize(target_size, Image.Resampling.BICUBIC, box)
    scale = min(scale_x, scale_y)
    resized = image.resize(
        (max(1, round(source_size[0] * scale)), max(1, round(source_size[1] * scale))), Image.Resampling.BICUBIC
    )
    canvas = Image.new(image.mode, target_size)
    canvas.paste(resized, ((target_size[0] - resized.width) // 2, (target_size[1] - resized.height) // 2))
    return canvas


def _convert_channels(image: Image.Image, channels: int) -> Image.Image:
    if image.mode in HIGH_BIT_DEPTH_MODES:
        image = Image.fromarray(to_uint8(np.array(image)))
    if num_channels(image) == 4:
        image = image.convert("RGBA")
        if channels != 4:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode == "P":
        image = image.convert("RGB")
    return image.convert(PIL_MODES[channels])


def decode_image(stored_image: StoredImage, spec: DecodeSpec) -> np.ndarray:
    """Return an entry as uint8 [height, width, channels] in the training shape; raises UnreadableImage if unusable."""
    with open_image(stored_image, spec.max_pixels) as image:
        return to_pixels(image, spec)
