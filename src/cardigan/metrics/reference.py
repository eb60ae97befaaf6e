"""The two sides of an evaluation: real images (training and holdout), and a sampler of images to evaluate.

Also resizes generated images to the shape of the real ones. Computes no metrics.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from cardigan.backbones.digit_classifier import SIDE
from cardigan.config_parts import DataConfig
from cardigan.errors import CardiganError
from cardigan.metrics.digits import to_mnist_shape
from cardigan.metrics.features import ImageShape, resize
from cardigan.rng import stream
from cardigan.shapes import Labels, Pixels

NUM_VALIDATION = 1_000
"""The last training images, reserved for choosing the Parzen window. Real baselines of large sets exclude them."""


@dataclass(frozen=True)
class Reference:
    """Real images to compare with, all of one shape."""

    name: str
    split: str
    """Name of the split in `holdout`."""
    train: UInt8[Tensor, "training channel height width"]
    train_labels: Int64[Tensor, " train"]
    holdout: UInt8[Tensor, "holdout channel height width"]
    holdout_labels: Int64[Tensor, " holdout"]
    num_classes: int
    extractor: str = "digits"
    """Default feature extractor."""
    fingerprint: str = ""
    """Identifies these images without reading them all, if known."""

    @property
    def image_shape(self) -> ImageShape:
        return (self.holdout.shape[1], self.holdout.shape[2], self.holdout.shape[3])

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of all pixels and labels, or of the fingerprint."""
        if self.fingerprint:
            return hashlib.sha256(self.fingerprint.encode()).hexdigest()
        digest = hashlib.sha256()
        for tensor in (self.train, self.train_labels, self.holdout, self.holdout_labels):
            digest.update(str(tuple(tensor.shape)).encode() + tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Sampler:
    """A source of images to evaluate.

    `draw(start, stop)` returns the images with these indices in the reference's shape, and their labels if any.
    """

    draw: Callable[[int, int], tuple[Pixels, Labels | None]]
    seed: int = 0
    image_resize: str = "as given"
    truncation: float = 1.0
    images_seen: int | None = None
    train_split: str = "train"
    num_available: int | None = field(default=None)
    """Number of images. None: unlimited."""
    teacher: str = ""
    """The pretrained network that the generator's discriminator learned from. It cannot judge the images."""


def array_sampler(pixels: Pixels, labels: Int64[Tensor, " label"] | None = None) -> Sampler:
    """Return a sampler of existing images in the reference's shape. Raises CardiganError for a wrong label count."""
    if labels is not None and len(labels) != len(pixels):
        raise CardiganError(f"{len(labels)} labels for {len(pixels)} images: expected one each.")
    return Sampler(
        lambda start, stop: (pixels[start:stop], None if labels is None else labels[start:stop]),
        num_available=len(pixels),
    )


def train_sampler(reference: Reference, seed: int = 0, num_reserved: int = NUM_VALIDATION) -> Sampler:
    """Return a sampler of training images in random order, but the last ones, as a perfect generator would produce."""
    order = torch.randperm(max(0, len(reference.train) - num_reserved), generator=stream(seed, "floor", 0))
    return _real_sampler(reference.train, reference.train_labels, order, seed)


def holdout_sampler(reference: Reference, seed: int = 0) -> Sampler:
    """Return a sampler of holdout images, as a perfect generator that copies nothing would produce."""
    order = torch.randperm(len(reference.holdout), generator=stream(seed, "floor", 1))
    return _real_sampler(reference.holdout, reference.holdout_labels, order, seed)


def _real_sampler(pixels: Pixels, labels: Labels, order: Int64[Tensor, " position"], seed: int) -> Sampler:
    return Sampler(
        lambda start, stop: (pixels[order[start:stop]], labels[order[start:stop]]), seed, num_available=len(order)
    )


def to_reference_shape(pixels: Pixels, data: DataConfig, image_shape: ImageShape) -> UInt8[Tensor, "batch _ _ _"]:
    """Return generated images in the shape of the real ones, inverting the resize of training.

    Raises CardiganError for another number of channels, unless the real images are gray digits.
    """
    if tuple(pixels.shape[1:]) == image_shape:
        return pixels
    if image_shape == (1, SIDE, SIDE):
        return to_mnist_shape(pixels, data)
    channels, height, width = image_shape
    if pixels.shape[1] != channels:
        raise CardiganError(
            f"Generated images of {pixels.shape[1]} channels and real images of {channels}: "
            "use a reference with equal channels."
        )
    if data.resize == "pad" and pixels.shape[2] >= height and pixels.shape[3] >= width:
        top, left = (pixels.shape[2] - height) // 2, (pixels.shape[3] - width) // 2
        return pixels[:, :, top : top + height, left : left + width]
    return resize(pixels, height, width).round().clamp(0, 255).to(torch.uint8)


def describe_resize(data: DataConfig, image_shape: ImageShape) -> str:
    """Return a description of what `to_reference_shape` does."""
    generated_shape = (data.channels, data.height, data.width)
    if generated_shape == image_shape:
        return "as generated"
    method = (
        "cropped"
        if data.resize == "pad" and data.height >= image_shape[1] and data.width >= image_shape[2]
        else "resized bilinearly, antialiased,"
    )
    channel_note = ", channels averaged" if data.channels != image_shape[0] else ""
    return f"{data.height}x{data.width}x{data.channels} {method} to {image_shape[1]}x{image_shape[2]}{channel_note}"
