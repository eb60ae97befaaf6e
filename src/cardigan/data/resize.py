"""Resizing of stored tensors to the training shape.

It differs from `decoding.resize_image` on purpose. Stored digits are resized bilinearly, as the tutorial does, and
`pad` does not enlarge them. Image files are resized bicubically with antialiasing, and `pad` enlarges small ones.
"""

import torch
from torch.nn.functional import interpolate, pad

from cardigan.config_parts import DataConfig
from cardigan.errors import CardiganError
from cardigan.pixels import decode
from cardigan.shapes import Images, Pixels, StoredPixels


def to_training_shape(pixels: StoredPixels, data: DataConfig) -> Images:
    """Return stored images in the training shape, in [-1, 1].

    `stretch` resizes bilinearly and rounds to whole gray levels, as `cv2.resize` on uint8 does in the tutorial.
    `pad` keeps the aspect ratio: it shrinks large images (antialiased), never enlarges, and fills the rest with black.
    `crop` keeps the aspect ratio: it fills the training shape and cuts off the rest, evenly on both sides.
    Raises CardiganError if the channels differ and the images are not gray.
    """
    if pixels.shape[2:] == (data.height, data.width):
        resized = pixels
    else:
        resized = {"stretch": _resize_stretch, "pad": _resize_pad, "crop": _resize_crop}[data.resize](
            pixels, data.height, data.width
        )
    images = decode(resized)
    if images.shape[1] == data.channels:
        return images
    if images.shape[1] != 1:
        raise CardiganError(
            f"data.channels is {data.channels} but the images have {images.shape[1]}: "
            "only gray images can be repeated over channels."
        )
    return images.expand(-1, data.channels, -1, -1)


def _resize_stretch(pixels: StoredPixels, height: int, width: int, antialias: bool = False) -> Pixels:
    if pixels.shape[2:] == (height, width):
        return pixels
    resized = interpolate(
        pixels.float(), size=(height, width), mode="bilinear", align_corners=False, antialias=antialias
    )
    return resized.round_().to(torch.uint8)


def _resize_pad(pixels: StoredPixels, height: int, width: int) -> Pixels:
    scale = min(height / pixels.shape[2], width / pixels.shape[3], 1.0)
    resized = _resize_stretch(
        pixels, max(1, round(pixels.shape[2] * scale)), max(1, round(pixels.shape[3] * scale)), antialias=True
    )
    pad_y, pad_x = height - resized.shape[2], width - resized.shape[3]
    return pad(resized, (pad_x // 2, pad_x - pad_x // 2, pad_y // 2, pad_y - pad_y // 2))


def _resize_crop(pixels: StoredPixels, height: int, width: int) -> Pixels:
    scale = max(height / pixels.shape[2], width / pixels.shape[3])
    resized = _resize_stretch(
        pixels, max(height, round(pixels.shape[2] * scale)), max(width, round(pixels.shape[3] * scale)), antialias=True
    )
    top, left = (resized.shape[2] - height) // 2, (resized.shape[3] - width) // 2
    return resized[:, :, top : top + height, left : left + width]
