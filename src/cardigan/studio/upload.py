"""A picture that somebody sends, brought into a generator's frame, or refused.

Nothing is decoded before its first bytes have said what it is, and its header that it is small enough.
"""

from cardigan.config import DataConfig
from cardigan.data.decoding import open_image
from cardigan.data.reader import UnreadableImage
from cardigan.explore.frames import preprocess_pil_image
from cardigan.shapes import Pixels
from cardigan.studio.query_params import BadRequest, ImageTooLarge

MAX_UPLOAD_PIXELS = 16_000_000
UNLIMITED_PIXELS = 2**62
"""Any number of pixels: the limit is ours to tell."""


def decode_upload(content: bytes, data: DataConfig) -> Pixels:
    """Return a PNG, JPEG or WebP as [1, c, h, w] in the frame of a training; raises Wrong for anything else, and TooManyPixels."""
    if not _is_supported_format(content):
        raise BadRequest("What was sent is no PNG, JPEG or WebP: send a picture in one of these formats.")
    try:
        with open_image(content, UNLIMITED_PIXELS) as image:
            if image.width * image.height > MAX_UPLOAD_PIXELS:
                raise ImageTooLarge(
                    f"The picture has {image.width:,} x {image.height:,} pixels: send one of at most {MAX_UPLOAD_PIXELS // 10**6} megapixels."
                )
            return preprocess_pil_image(image, data)
    except UnreadableImage as error:
        raise BadRequest(f"The picture that was sent {error}.") from error


def _is_supported_format(content: bytes) -> bool:
    """Return whether the first bytes are those of a format that we take: Pillow knows dozens, some of which start other programs."""
    return content.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")) or (
        content[:4] == b"RIFF" and content[8:12] == b"WEBP"
    )
