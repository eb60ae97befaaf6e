"""Preprocesses a user's image exactly as a run's training images. Handles one image at a time."""

from dataclasses import replace

import numpy as np
import torch
from PIL import Image, ImageOps

from cardigan.config_parts import DataConfig
from cardigan.data.builtin import BUILTIN_DATASETS
from cardigan.data.decoding import decode_spec, open_image, to_pixels
from cardigan.data.reader import StoredImage
from cardigan.data.resize import to_training_shape
from cardigan.pixels import encode
from cardigan.shapes import Pixels


def preprocess_image(stored: StoredImage, data: DataConfig) -> Pixels:
    """Return a stored image as [1, c, h, w] in a run's shape; raises UnreadableImage if it cannot be used."""
    with open_image(stored, data.max_pixels) as image:
        return preprocess_pil_image(image, data)


def preprocess_pil_image(image: Image.Image, data: DataConfig) -> Pixels:
    """Return an opened image as [1, c, h, w] in a run's shape.

    Built-in digits are padded, never enlarged: the digit fills 28x28 of 32x32 pixels. A larger image is shrunk to
    fit, so give a digit at 28x28 pixels or fewer.
    """
    frame = decode_spec(data)
    if data.source not in BUILTIN_DATASETS:
        return _to_batch(to_pixels(image, frame))
    upright = ImageOps.exif_transpose(image)
    return encode(
        to_training_shape(
            _to_batch(to_pixels(upright, replace(frame, height=upright.height, width=upright.width))), data
        )
    )


def _to_batch(pixels: np.ndarray) -> Pixels:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
