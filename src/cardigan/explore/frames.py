"""A picture that somebody gives, brought into a run's frame as its training pictures were. Knows pictures one at a time."""

from dataclasses import replace

import numpy as np
import torch
from PIL import Image, ImageOps

from cardigan.config import DataConfig
from cardigan.data.decoding import frame_of, opened, pixels_of
from cardigan.data.pictures import EMBEDDED
from cardigan.data.reader import Stored
from cardigan.data.source import framed
from cardigan.pixels import encode
from cardigan.shapes import Pixels


def in_frame(stored: Stored, data: DataConfig) -> Pixels:
    """Return a stored picture as [1, c, h, w] in the frame of a run; raises Unreadable for one that cannot be used."""
    with opened(stored, data.max_pixels) as image:
        return opened_in_frame(image, data)


def opened_in_frame(image: Image.Image, data: DataConfig) -> Pixels:
    """Return an opened picture as [1, c, h, w] in the frame of a run.

    Embedded digits are padded and never enlarged, so 28x28 pixels of a frame of 32x32 are the digit; a given one must not be larger than those.
    """
    frame = frame_of(data)
    if data.source not in EMBEDDED:
        return _batch(pixels_of(image, frame))
    upright = ImageOps.exif_transpose(image)
    return encode(framed(_batch(pixels_of(upright, replace(frame, height=upright.height, width=upright.width))), data))


def _batch(pixels: np.ndarray) -> Pixels:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
