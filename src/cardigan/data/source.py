"""What a source of pictures is: stored pixels, labels if it has any, and the frame they are brought into.

Does not know files: readers such as `mnist.py` fill it. Does not know order: `batches.py` asks for positions.
"""

import dataclasses
from dataclasses import dataclass

import torch

from cardigan.config import DataConfig
from cardigan.data.resize import to_training_shape
from cardigan.errors import CardiganError
from cardigan.rng import stream
from cardigan.shapes import Images, Indices, Labels, StoredPixels


@dataclass(frozen=True)
class ImageSpec:
    """What a network must know of its pictures."""

    channels: int
    height: int
    width: int
    num_classes: int
    """Number of classes the networks are told about; 0 when they are not."""
    class_names: tuple[str, ...] = ()
    """What they are called, where they have names."""


def image_spec(data: DataConfig, num_classes: int, class_names: tuple[str, ...] = ()) -> ImageSpec:
    """Return what networks must know of pictures in this frame."""
    return ImageSpec(data.channels, data.height, data.width, num_classes, class_names)


@dataclass(frozen=True)
class ImageSource:
    """Pictures that can be asked for by number. `pixels` may live on any device, or be a mapped file; what is asked of it comes from there."""

    name: str
    pixels: StoredPixels
    labels: Labels
    num_classes: int
    horizontal_flip: bool = False
    """Whether every picture is there a second time, left and right exchanged: number i + n is the mirror image of i."""
    class_names: tuple[str, ...] = ()
    fingerprint: str = ""
    """A name for exactly these pixels, where one is known without reading them all."""

    def __len__(self) -> int:
        return len(self.pixels) * (2 if self.horizontal_flip else 1)

    def to(self, device: torch.device) -> "ImageSource":
        return dataclasses.replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def images_at(self, indices: Indices, data: DataConfig) -> Images:
        """Return the pictures at `indices` in the frame that `data` describes, in [-1, 1]."""
        return to_training_shape(self.pixels_at(indices), data)

    def pixels_at(self, indices: Indices) -> StoredPixels:
        """Return the pictures at `indices` as they are stored."""
        if not self.horizontal_flip:
            return self.pixels[indices]
        pixels = self.pixels[indices % len(self.pixels)]
        return torch.where((indices >= len(self.pixels))[:, None, None, None], pixels.flip(3), pixels)

    def labels_at(self, indices: Indices) -> Labels:
        return self.labels[indices % len(self.labels)]


def random_subset(source: ImageSource, count: int) -> ImageSource:
    """Return `count` pictures of the source, always the same ones, in random order; all of them for 0. Raises CardiganError if there are fewer."""
    if count == 0:
        return source
    num_available = len(source.pixels)
    if count > num_available:
        raise CardiganError(
            f"data.max_images is {count:,} and {source.name!r} has {num_available:,} pictures: give a smaller one, or 0 for all."
        )
    return subset(source, torch.randperm(num_available, generator=stream(0, "limit", 0))[:count], f"limit {count}")


def subset(source: ImageSource, indices: Indices, description: str) -> ImageSource:
    """Return the source's pictures at these places; `description` says how they were chosen."""
    fingerprint = f"{source.fingerprint} {description}" if source.fingerprint else ""
    return dataclasses.replace(
        source, pixels=source.pixels[indices], labels=source.labels[indices], fingerprint=fingerprint
    )
