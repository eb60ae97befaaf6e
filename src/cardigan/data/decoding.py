"""From a stored entry to pixels in a frame: any format, mode and size, upright, with one antialiased resizer.

Knows pictures one at a time; not where they come from, nor in which process it runs.
"""

import io
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cardigan.config import DataConfig
from cardigan.data.reader import Stored, Unreadable

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
DEEP = {"I", "I;16", "I;16B", "I;16L", "I;16N", "F"}
CLEAR = {"RGBA", "LA", "PA", "La", "RGBa"}
BROKEN = (
    *(OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, ZeroDivisionError, OverflowError, RuntimeError),
    *(AttributeError, struct.error),
)
"""What Pillow's decoders raise for files that are cut off or damaged."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "PPM")
"""What files of pictures hold, whatever they are called; Pillow knows dozens more, some of which start other programs."""
_OPENING = threading.Lock()
DRAFT = 2
"""A JPEG is decoded at half, a quarter or an eighth of its size where that is still this many times the frame."""


@dataclass(frozen=True)
class Frame:
    """What every picture of a training has in common."""

    height: int
    width: int
    channels: int
    fit: str
    max_pixels: int


def frame_of(data: DataConfig) -> Frame:
    return Frame(data.height, data.width, data.channels, data.fit, data.max_pixels)


@contextmanager
def opened(stored: Stored, max_pixels: int) -> Iterator[Image.Image]:
    """Yield the picture, its header read and its pixels not yet, unless it is an array.

    Raises Unreadable, in the block too, for what is no picture, cut off, damaged, or of more pixels than allowed.
    """
    try:
        with _hushed():
            image = _with_header(_content(stored)) if isinstance(stored, bytes) else from_array(stored)
            if image.width * image.height > max_pixels:
                raise Unreadable(
                    f"has {image.width:,} x {image.height:,} pixels and data.max_pixels is {max_pixels:,}: make it smaller, or raise that setting"
                )
            with image:
                yield image
    except UnidentifiedImageError:
        raise Unreadable("is no picture of a known format") from None
    except BROKEN as error:
        raise Unreadable(f"is damaged ({_reason(error)})") from None
    except MemoryError:
        raise Unreadable("does not fit into memory") from None


def _with_header(content: bytes) -> Image.Image:
    """Return a picture of which the header is read, however large it is: there is one limit, ours, whose name the message can tell."""
    with _OPENING:
        Image.init()  # what this Pillow was built with
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(content), formats=[known for known in FORMATS if known in Image.OPEN])
        finally:
            Image.MAX_IMAGE_PIXELS = before


@contextmanager
def _hushed() -> Iterator[None]:
    """Warn of nothing, since odd metadata harms no picture; in the main thread alone, as the filters belong to the whole process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _content(stored: bytes) -> bytes:
    if not stored:
        raise Unreadable("is empty")
    return stored


def _reason(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:120].rstrip(".") if text else type(error).__name__


def from_array(pixels: np.ndarray) -> Image.Image:
    """Return an array [height, width] or [height, width, 1, 3 or 4] of 8 or 16 bits, or of numbers 0 to 1, as a picture."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        raise Unreadable(f"has the shape {pixels.shape}: expected [height, width] or [height, width, 1, 3 or 4]")
    return Image.fromarray(np.ascontiguousarray(eight_bits(pixels)))


def eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Return values as uint8: 16 bits lose their lower half, numbers 0 to 1 (or booleans) are scaled to 0 to 255."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * 255
    if pixels.dtype == np.uint16:
        return (pixels >> 8).astype(np.uint8)
    if np.issubdtype(pixels.dtype, np.floating):
        if not np.isfinite(pixels).all():
            raise Unreadable("holds numbers that are not finite")
        scale = 255 if pixels.size == 0 or pixels.max() <= 1 else 1
        return (pixels * scale).round().clip(0, 255).astype(np.uint8)
    if np.issubdtype(pixels.dtype, np.integer):
        wide = pixels.size > 0 and pixels.max() > 255
        return (pixels.astype(np.int64) >> (8 if wide else 0)).clip(0, 255).astype(np.uint8)
    raise Unreadable(f"holds values of type {pixels.dtype}: expected 8 or 16 bits, or numbers 0 to 1")


def channels_of(image: Image.Image) -> int:
    """Return how many channels a picture has for our purposes: 1 grey, 3 colour, 4 with transparency."""
    if image.mode in CLEAR or "transparency" in image.info:
        return 4
    return 1 if image.mode in DEEP or image.mode in {"L", "1"} else 3


def conversion(image: Image.Image) -> str:
    """Return a note of what a picture loses on its way to 8-bit grey, RGB or RGBA; "" where it loses nothing."""
    if image.mode in DEEP:
        return "more than 8 bits a value, reduced to 8"
    return "" if image.mode in {"L", "1", "RGB", "P"} | CLEAR else f"{image.mode} converted to RGB"


def pixels_of(image: Image.Image, frame: Frame) -> np.ndarray:
    """Return a picture as uint8 [height, width, channels] in the frame, upright as its EXIF says.

    `crop` fills the frame and cuts off the middle's surroundings; `pad` shows all and fills up with black (or transparency);
    `stretch` fills the frame, whatever becomes of the shape. Transparency without a channel of its own becomes white.
    Where a picture is wholly transparent its colour is set to 0: what nobody sees need not be learned.
    """
    if image.format == "JPEG":
        image.draft(None, (DRAFT * frame.width, DRAFT * frame.height))
    upright = ImageOps.exif_transpose(image)
    fitted = _fitted(_coloured(upright, frame.channels), frame)
    pixels = np.array(fitted).reshape(frame.height, frame.width, frame.channels)
    if frame.channels == 4:
        pixels[pixels[:, :, 3] == 0] = 0
    return pixels


def _coloured(image: Image.Image, channels: int) -> Image.Image:
    if image.mode in DEEP:
        image = Image.fromarray(eight_bits(np.array(image)))
    if channels_of(image) == 4:
        image = image.convert("RGBA")
        if channels != 4:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode == "P":
        image = image.convert("RGB")
    return image.convert(MODES[channels])


def _fitted(image: Image.Image, frame: Frame) -> Image.Image:
    size, given = (frame.width, frame.height), image.size
    if given == size:
        return image
    if frame.fit == "stretch":
        return image.resize(size, Image.Resampling.BICUBIC)
    across, down = size[0] / given[0], size[1] / given[1]
    if frame.fit == "crop":
        scale = max(across, down)
        left, top = (given[0] - size[0] / scale) / 2, (given[1] - size[1] / scale) / 2
        box = (max(0.0, left), max(0.0, top), min(given[0], given[0] - left), min(given[1], given[1] - top))
        return image.resize(size, Image.Resampling.BICUBIC, box)
    scale = min(across, down)
    inner = image.resize((max(1, round(given[0] * scale)), max(1, round(given[1] * scale))), Image.Resampling.BICUBIC)
    whole = Image.new(image.mode, size)
    whole.paste(inner, ((size[0] - inner.width) // 2, (size[1] - inner.height) // 2))
    return whole


def decoded(stored: Stored, frame: Frame) -> np.ndarray:
    """Return an entry's pixels in the frame, uint8 [height, width, channels]; raises Unreadable for one that cannot be used."""
    with opened(stored, frame.max_pixels) as image:
        return pixels_of(image, frame)
