"""The two sides of a judgement: real pictures, some trained on and some held out, and where the judged pictures come from.

Knows how to bring generated pictures into the frame of the real ones; computes no number.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from cardigan.backbones.digit_classifier import SIDE
from cardigan.config import DataConfig
from cardigan.errors import CardiganError
from cardigan.metrics.digits import to_mnist_shape
from cardigan.metrics.features import ImageShape, resize
from cardigan.rng import stream
from cardigan.shapes import Labels, Pixels

NUM_VALIDATION = 1_000
"""The last training pictures, kept for choosing a Parzen window: no real baseline is drawn from them."""


@dataclass(frozen=True)
class Reference:
    """Real pictures to judge by, in one frame."""

    name: str
    split: str
    """What the held-out pictures are called."""
    train: UInt8[Tensor, "training channel height width"]
    train_labels: Int64[Tensor, " train"]
    holdout: UInt8[Tensor, "holdout channel height width"]
    holdout_labels: Int64[Tensor, " holdout"]
    num_classes: int
    extractor: str = "digits"
    """What judges such pictures unless another is asked for."""
    fingerprint: str = ""
    """A name for exactly these pictures, where one is known without reading them all."""

    @property
    def image_shape(self) -> ImageShape:
        return (self.holdout.shape[1], self.holdout.shape[2], self.holdout.shape[3])

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of all pixels and labels, or of what is known to determine them."""
        if self.fingerprint:
            return hashlib.sha256(self.fingerprint.encode()).hexdigest()
        digest = hashlib.sha256()
        for tensor in (self.train, self.train_labels, self.holdout, self.holdout_labels):
            digest.update(str(tuple(tensor.shape)).encode() + tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Sampler:
    """Where judged pictures come from: `draw(start, stop)` returns those numbered so, in the reference's frame, with labels if they have any."""

    draw: Callable[[int, int], tuple[Pixels, Labels | None]]
    seed: int = 0
    image_resize: str = "as given"
    truncation: float = 1.0
    images_seen: int | None = None
    train_split: str = "train"
    num_available: int | None = field(default=None)
    """How many there are; None is any number."""


def array_sampler(pixels: Pixels, labels: Int64[Tensor, " label"] | None = None) -> Sampler:
    """Return a sampler of pictures that are there already, in the reference's frame; raises CardiganError for labels of another count."""
    if labels is not None and len(labels) != len(pixels):
        raise CardiganError(f"{len(labels)} labels for {len(pixels)} pictures: expected one each.")
    return Sampler(
        lambda start, stop: (pixels[start:stop], None if labels is None else labels[start:stop]),
        num_available=len(pixels),
    )


def train_sampler(reference: Reference, seed: int = 0) -> Sampler:
    """Return a sampler of real training pictures in random order: what a perfect generator would draw."""
    order = torch.randperm(max(0, len(reference.train) - NUM_VALIDATION), generator=stream(seed, "floor", 0))
    return _real_sampler(reference.train, reference.train_labels, order, seed)


def holdout_sampler(reference: Reference, seed: int = 0) -> Sampler:
    """Return a sampler of real pictures that were not trained on: what a perfect generator that copies nothing would draw."""
    order = torch.randperm(len(reference.holdout), generator=stream(seed, "floor", 1))
    return _real_sampler(reference.holdout, reference.holdout_labels, order, seed)


def _real_sampler(pixels: Pixels, labels: Labels, order: Int64[Tensor, " place"], seed: int) -> Sampler:
    return Sampler(
        lambda start, stop: (pixels[order[start:stop]], labels[order[start:stop]]), seed, num_available=len(order)
    )


def to_reference_shape(pixels: Pixels, data: DataConfig, image_shape: ImageShape) -> UInt8[Tensor, "batch _ _ _"]:
    """Return generated pictures in the frame of the real ones: the inverse of the frame they were trained in.

    Raises CardiganError where the real ones have another number of channels, unless they are grey digits.
    """
    if tuple(pixels.shape[1:]) == image_shape:
        return pixels
    if image_shape == (1, SIDE, SIDE):
        return to_mnist_shape(pixels, data)
    channels, height, width = image_shape
    if pixels.shape[1] != channels:
        raise CardiganError(
            f"Generated pictures of {pixels.shape[1]} channels beside real ones of {channels}: give a reference of equal channels."
        )
    if data.resize == "pad" and pixels.shape[2] >= height and pixels.shape[3] >= width:
        top, left = (pixels.shape[2] - height) // 2, (pixels.shape[3] - width) // 2
        return pixels[:, :, top : top + height, left : left + width]
    return resize(pixels, height, width).round().clamp(0, 255).to(torch.uint8)


def describe_resize(data: DataConfig, image_shape: ImageShape) -> str:
    """Return in words what `to_reference_shape` does."""
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
