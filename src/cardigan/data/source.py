"""The `ImageSource`: stored pixels with labels, and the `ImageSpec` of the training shape.

Does not know files: loaders such as `mnist.py` create it. Does not know the order: `batches.py` chooses the indices.
"""

import dataclasses
from dataclasses import dataclass

import torch

from cardigan.config_parts import DataConfig
from cardigan.data.resize import to_training_shape
from cardigan.errors import CardiganError
from cardigan.rng import stream
from cardigan.shapes import Images, Indices, Labels, StoredPixels


@dataclass(frozen=True)
class ImageSpec:
    """The shape of the training images and their classes, as the networks need them.

    Examples:
        >>> import cardigan
        >>> cardigan.ImageSpec(channels=3, height=64, width=96, num_classes=0)
        ImageSpec(channels=3, height=64, width=96, num_classes=0, class_names=(), class_counts=())
    """

    channels: int
    """1 for gray, 3 for color, 4 with transparency."""
    height: int
    """In pixels."""
    width: int
    """In pixels."""
    num_classes: int
    """Number of classes that the networks are conditioned on; 0 for unconditional networks."""
    class_names: tuple[str, ...] = ()
    """Names of the classes. Default: no names."""
    class_counts: tuple[int, ...] = ()
    """How often each class is drawn for samples of no given class, as numbers of images. Default: all equally often."""


def image_spec(
    data: DataConfig, num_classes: int, class_names: tuple[str, ...] = (), class_counts: tuple[int, ...] = ()
) -> ImageSpec:
    """Return the spec of images in the training shape of `data`."""
    return ImageSpec(data.channels, data.height, data.width, num_classes, class_names, class_counts)


@dataclass(frozen=True)
class ImageSource:
    """Images by index. `pixels` may be on any device or in a memory-mapped file; results are on the same device.

    Examples:
        >>> import cardigan
        >>> import torch
        >>> pixels = torch.zeros(10, 3, 20, 30, dtype=torch.uint8)
        >>> labels = torch.zeros(10, dtype=torch.long)
        >>> source = cardigan.ImageSource("black", pixels, labels, num_classes=0)
        >>> images = source.images_at(torch.tensor([0, 5]), cardigan.config_for("photos/").data)
        >>> images.shape, images.min().item()
        (torch.Size([2, 3, 64, 64]), -1.0)
    """

    name: str
    """What messages call the source."""
    pixels: StoredPixels
    """uint8 [N, channels, height, width], before they are resized."""
    labels: Labels
    """int64 [N], from 0 to `num_classes` - 1; all 0 for images without classes."""
    num_classes: int
    """Number of classes; 0 for images without classes."""
    horizontal_flip: bool = False
    """Whether the source also holds every image flipped horizontally: index i + n is the flip of image i."""
    class_names: tuple[str, ...] = ()
    """Names of the classes. Default: no names."""
    fingerprint: str = ""
    """A hash that identifies these pixels, where one is known without reading them all."""

    def __len__(self) -> int:
        return len(self.pixels) * (2 if self.horizontal_flip else 1)

    def to(self, device: torch.device) -> "ImageSource":
        """Return the source with its pixels and labels on `device`."""
        return dataclasses.replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def images_at(self, indices: Indices, data: DataConfig) -> Images:
        """Return the images at `indices` in the training shape of `data`: float [batch, channels, height, width] in
        [-1, 1]."""
        return to_training_shape(self.pixels_at(indices), data)

    def pixels_at(self, indices: Indices) -> StoredPixels:
        """Return the images at `indices` as stored: uint8 [batch, channels, height, width]."""
        if not self.horizontal_flip:
            return self.pixels[indices]
        pixels = self.pixels[indices % len(self.pixels)]
        return torch.where((indices >= len(self.pixels))[:, None, None, None], pixels.flip(3), pixels)

    def labels_at(self, indices: Indices) -> Labels:
        """Return the classes of the images at `indices`, int64 [batch]."""
        return self.labels[indices % len(self.labels)]


def random_subset(source: ImageSource, count: int) -> ImageSource:
    """Return a fixed random subset of `count` images, or the whole source for 0.

    Raises CardiganError if the source has fewer images.
    """
    if count == 0:
        return source
    num_available = len(source.pixels)
    if count > num_available:
        raise CardiganError(
            f"data.max_images is {count:,} and {source.name!r} has {num_available:,} images: "
            "give a smaller number, or 0 for all."
        )
    return subset(source, torch.randperm(num_available, generator=stream(0, "limit", 0))[:count], f"limit {count}")


def subset(source: ImageSource, indices: Indices, description: str) -> ImageSource:
    """Return the source's images at these indices. `description` says how they were chosen."""
    fingerprint = f"{source.fingerprint} {description}" if source.fingerprint else ""
    return dataclasses.replace(
        source, pixels=source.pixels[indices], labels=source.labels[indices], fingerprint=fingerprint
    )
