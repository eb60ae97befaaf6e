"""What one picture tells of itself when it is decoded: size, colours, transparency, blankness, and what makes copies of it known.

Knows nothing of the other pictures.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from cardigan.data.checking.likeness import thumbnail
from cardigan.data.decoding import CLEAR, DEEP, channels_of, conversion, eight_bits, opened
from cardigan.data.reader import Reader, Stored, Unreadable

ORIENTATION = 0x0112
BLANK_BELOW = 2.0
"""Standard deviation of the grey levels, of 255."""
MODES = {"1": "1-bit", "L": "grey", "La": "grey", "LA": "grey", "P": "palette", "PA": "palette", "RGBa": "RGBA", "I": "32-bit", "F": "32-bit"}


@dataclass(frozen=True)
class Look:
    """One picture, decoded once. Height and width are those of the upright picture."""

    index: int
    num_bytes: int
    format: str
    """As Pillow calls it, or "array"."""
    colours: str
    """How they are stored: "RGB", "grey", "palette", "CMYK", "16-bit", "RGBA, transparent" or "RGBA, opaque" and so on."""
    conversion: str
    """What is lost on the way to 8-bit grey, RGB or RGBA; "" if nothing is."""
    height: int
    width: int
    turned: bool
    """Whether its EXIF says that it is to be turned or mirrored."""
    channels: int
    """As few as show all that is in it: 1 grey, 3 colour, 4 if it is transparent somewhere."""
    deviation: float
    """Standard deviation of the grey levels."""
    content_hash: bytes
    pixel_hash: bytes
    thumbnail: np.ndarray

    @property
    def blank(self) -> bool:
        return self.deviation < BLANK_BELOW


@dataclass(frozen=True)
class Unread:
    """A picture that cannot be used, and why."""

    index: int
    reason: str


def looked(reader: Reader, index: int, max_pixels: int) -> Look | Unread:
    """Return what an entry of a source shows, or why it does not."""
    try:
        return look(reader.read(index), index, max_pixels)
    except Unreadable as error:
        return Unread(index, str(error))


def look(stored: Stored, index: int, max_pixels: int) -> Look:
    """Return what a stored picture shows; raises Unreadable for one that cannot be used."""
    with opened(stored, max_pixels) as image:
        format, note = image.format or "array", conversion(image)
        turned = image.getexif().get(ORIENTATION, 1) in range(2, 9)
        colours, plain = _colours(image), plainest(ImageOps.exif_transpose(image))
    shown, deviation = _shown(plain)
    return Look(
        index,
        len(stored) if isinstance(stored, bytes) else stored.nbytes,
        format,
        _told(colours, plain),
        note,
        plain.height,
        plain.width,
        turned,
        len(plain.getbands()),
        deviation,
        hashlib.blake2b(stored if isinstance(stored, bytes) else np.ascontiguousarray(stored).data, digest_size=16).digest(),
        _pixel_hash(plain),
        thumbnail(shown),
    )


def _colours(image: Image.Image) -> tuple[str, bool]:
    """Return how a picture's colours are stored, and whether it could be transparent."""
    mode = "16-bit" if image.mode.startswith("I;") else MODES.get(image.mode, image.mode)
    return mode, image.mode in CLEAR or "transparency" in image.info


def _told(colours: tuple[str, bool], plain: Image.Image) -> str:
    mode, could_be_clear = colours
    return f"{mode}, {'transparent' if plain.mode == 'RGBA' else 'opaque'}" if could_be_clear else mode


def plainest(image: Image.Image) -> Image.Image:
    """Return a picture as L, RGB or RGBA, the first that shows all that is in it: equal pictures become equal however they were stored."""
    if image.mode in DEEP:
        image = Image.fromarray(eight_bits(np.array(image)))
    if channels_of(image) == 4:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            return image
    elif image.mode in {"1", "L"}:
        return image.convert("L")
    image = image.convert("RGB")
    return image.getchannel("R") if _is_grey(np.asarray(image)) else image


def _is_grey(pixels: np.ndarray) -> bool:
    """Return whether the colours are equal everywhere; a few pixels tell that most pictures are not grey."""
    return all(bool((part[:, :, :1] == part[:, :, 1:]).all()) for part in (pixels[::16, ::16], pixels))


def _pixel_hash(plain: Image.Image) -> bytes:
    pixels = np.asarray(plain)
    if plain.mode == "RGBA":
        pixels = np.where(pixels[:, :, 3:] == 0, np.uint8(0), pixels)  # nobody sees the colour there
    return hashlib.blake2b(pixels.data, digest_size=16, person=f"{plain.width}x{plain.height}".encode()[:16]).digest()


def _shown(plain: Image.Image) -> tuple[Image.Image, float]:
    """Return an opaque picture and the deviation of its grey levels: a transparent one over white or over black, where more of it is seen."""
    if plain.mode != "RGBA":
        return plain, _deviation(plain)
    grounds = (Image.alpha_composite(Image.new("RGBA", plain.size, ground), plain).convert("RGB") for ground in ("white", "black"))
    return max(((image, _deviation(image)) for image in grounds), key=lambda found: found[1])


def _deviation(image: Image.Image) -> float:
    counts, levels = np.array(image.convert("L").histogram(), np.float64), np.arange(256)
    mean = (counts * levels).sum() / counts.sum()
    return float(np.sqrt((counts * (levels - mean) ** 2).sum() / counts.sum()))
