"""Decoding of an uploaded image to a generator's size and channels.

Format and size are checked from the header before the image is decoded.
"""

from cardigan.config_parts import DataConfig
from cardigan.data.decoding import open_image
from cardigan.data.reader import UnreadableImage
from cardigan.explore.preprocessing import preprocess_pil_image
from cardigan.http.errors import BadRequest
from cardigan.shapes import Pixels
from cardigan.studio.query_params import ImageTooLarge

MAX_UPLOAD_PIXELS = 16_000_000
UNLIMITED_PIXELS = 2**62
"""No limit in `open_image`: MAX_UPLOAD_PIXELS is checked here, with its own message."""


def decode_upload(content: bytes, data: DataConfig) -> Pixels:
    """Return a PNG, JPEG or WebP as [1, c, h, w], preprocessed as for training. Raises BadRequest and ImageTooLarge."""
    if not _is_supported_format(content):
        raise BadRequest("The upload is not a PNG, JPEG or WebP: send an image in one of these formats.")
    try:
        with open_image(content, UNLIMITED_PIXELS) as image:
            if image.width * image.height > MAX_UPLOAD_PIXELS:
                raise ImageTooLarge(
                    f"The image has {image.width:,} x {image.height:,} pixels: "
                    f"send one of at most {MAX_UPLOAD_PIXELS // 10**6} megapixels."
                )
            return preprocess_pil_image(image, data)
    except UnreadableImage as error:
        raise BadRequest(f"The uploaded image {error}.") from error


def _is_supported_format(content: bytes) -> bool:
    """Return whether the first bytes are those of a supported format. Some other formats of Pillow start programs."""
    return content.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")) or (
        content[:4] == b"RIFF" and content[8:12] == b"WEBP"
    )
