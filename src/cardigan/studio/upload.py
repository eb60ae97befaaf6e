"""A picture that somebody sends, brought into a generator's frame, or refused.

Nothing is decoded before its first bytes have said what it is, and its header that it is small enough.
"""

from cardigan.config import DataConfig
from cardigan.data.decoding import opened
from cardigan.data.reader import Unreadable
from cardigan.explore.frames import opened_in_frame
from cardigan.shapes import Pixels
from cardigan.studio.asking import TooManyPixels, Wrong

MAX_PIXELS = 16_000_000
ENOUGH = 2**62
"""Any number of pixels: the limit is ours to tell."""


def picture(content: bytes, data: DataConfig) -> Pixels:
    """Return a PNG, JPEG or WebP as [1, c, h, w] in the frame of a training; raises Wrong for anything else, and TooManyPixels."""
    if not _is_known(content):
        raise Wrong("What was sent is no PNG, JPEG or WebP: send a picture in one of these formats.")
    try:
        with opened(content, ENOUGH) as image:
            if image.width * image.height > MAX_PIXELS:
                raise TooManyPixels(
                    f"The picture has {image.width:,} x {image.height:,} pixels: send one of at most {MAX_PIXELS // 10**6} megapixels."
                )
            return opened_in_frame(image, data)
    except Unreadable as error:
        raise Wrong(f"The picture that was sent {error}.") from error


def _is_known(content: bytes) -> bool:
    """Return whether the first bytes are those of a format that we take: Pillow knows dozens, some of which start other programs."""
    return content.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")) or (content[:4] == b"RIFF" and content[8:12] == b"WEBP")
