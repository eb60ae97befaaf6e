"""What a source of pictures is: stored pixels, labels if it has any, and the frame they are brought into.

Does not know files: readers such as `mnist.py` fill it. Does not know order: `batches.py` asks for positions.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import interpolate, pad

from cardigan.config import DataConfig
from cardigan.errors import CardiganError
from cardigan.pixels import decode
from cardigan.rng import stream
from cardigan.shapes import Images, Indices, Labels, Pixels, StoredPixels


@dataclass(frozen=True)
class ImageSpec:
    """What a network must know of its pictures."""

    channels: int
    height: int
    width: int
    classes: int
    """Number of classes the networks are told about; 0 when they are not."""


def image_spec(data: DataConfig, classes: int) -> ImageSpec:
    """Return what networks must know of pictures in this frame."""
    return ImageSpec(data.channels, data.height, data.width, classes)


@dataclass(frozen=True)
class ImageSource:
    """Pictures as they are stored, in memory. `pixels` may live on any device; what is asked of it comes from there."""

    name: str
    pixels: StoredPixels
    labels: Labels
    classes: int

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: torch.device) -> "ImageSource":
        return ImageSource(self.name, self.pixels.to(device), self.labels.to(device), self.classes)

    def images(self, indices: Indices, data: DataConfig) -> Images:
        """Return the pictures at `indices` in the frame that `data` describes, in [-1, 1]."""
        return framed(self.pixels[indices], data)


def limited(source: ImageSource, count: int) -> ImageSource:
    """Return `count` pictures of the source, always the same ones, in random order; all of them for 0. Raises CardiganError if there are fewer."""
    if count == 0:
        return source
    if count > len(source):
        raise CardiganError(f"data.limit is {count:,} and {source.name!r} has {len(source):,} pictures: give a smaller one, or 0 for all.")
    chosen = torch.randperm(len(source), generator=stream(0, "limit", 0))[:count]
    return ImageSource(source.name, source.pixels[chosen], source.labels[chosen], source.classes)


def framed(pixels: StoredPixels, data: DataConfig) -> Images:
    """Return stored pictures resized to the frame, with its number of channels, in [-1, 1].

    `stretch` resizes bilinearly and rounds to whole grey levels, as `cv2.resize` on uint8 does in the tutorial.
    `pad` keeps the shape: shrinks (antialiased) what is too large, never enlarges, and fills the rest with black.
    """
    fitted = _stretched(pixels, data.height, data.width) if data.fit == "stretch" else _padded(pixels, data.height, data.width)
    images = decode(fitted)
    if images.shape[1] == data.channels:
        return images
    if images.shape[1] != 1:
        raise CardiganError(
            f"data.channels is {data.channels} but the pictures have {images.shape[1]}: only grey pictures can be repeated over channels."
        )
    return images.expand(-1, data.channels, -1, -1)


def _stretched(pixels: StoredPixels, height: int, width: int, antialias: bool = False) -> Pixels:
    if pixels.shape[2:] == (height, width):
        return pixels
    resized = interpolate(pixels.float(), size=(height, width), mode="bilinear", align_corners=False, antialias=antialias)
    return resized.round_().to(torch.uint8)


def _padded(pixels: StoredPixels, height: int, width: int) -> Pixels:
    scale = min(height / pixels.shape[2], width / pixels.shape[3], 1.0)
    inner = _stretched(pixels, max(1, round(pixels.shape[2] * scale)), max(1, round(pixels.shape[3] * scale)), antialias=True)
    down, across = height - inner.shape[2], width - inner.shape[3]
    return pad(inner, (across // 2, across - across // 2, down // 2, down - down // 2))
