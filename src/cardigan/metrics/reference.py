"""The two sides of a judgement: real pictures, some trained on and some held out, and where the judged pictures come from.

Knows how to bring generated pictures into the frame of the real ones; computes no number.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from cardigan.config import Config, DataConfig
from cardigan.data.mnist import mnist
from cardigan.data.source import ImageSource, limited
from cardigan.data.stacked import stacked_mnist
from cardigan.errors import CardiganError, unknown
from cardigan.metrics.digits import SIDE, to_digit_frame
from cardigan.metrics.features import Frame, resized
from cardigan.rng import stream
from cardigan.shapes import Labels, Pixels

VALIDATION = 1_000
"""The last training pictures, kept for choosing a Parzen window: no floor is drawn from them."""


@dataclass(frozen=True)
class Reference:
    """Real pictures to judge by, in one frame."""

    name: str
    split: str
    """What the held-out pictures are called."""
    training: UInt8[Tensor, "training channel height width"]
    training_labels: Int64[Tensor, " training"]
    held_out: UInt8[Tensor, "held_out channel height width"]
    held_out_labels: Int64[Tensor, " held_out"]
    classes: int

    @property
    def frame(self) -> Frame:
        return (self.held_out.shape[1], self.held_out.shape[2], self.held_out.shape[3])

    @cached_property
    def identity(self) -> str:
        """SHA-256 of all pixels and labels."""
        digest = hashlib.sha256()
        for tensor in (self.training, self.training_labels, self.held_out, self.held_out_labels):
            digest.update(str(tuple(tensor.shape)).encode() + tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Sampler:
    """Where judged pictures come from: `draw(start, stop)` returns those numbered so, in the reference's frame, with labels if they have any."""

    draw: Callable[[int, int], tuple[Pixels, Labels | None]]
    seed: int = 0
    frame: str = "as given"
    images_seen: int | None = None
    trained_on: str = "train"
    available: int | None = field(default=None)
    """How many there are; None is any number."""


def mnist_reference() -> Reference:
    """Return the digits as they are stored: trained on 60,000, judged by the 10,000 of the test set."""
    train, test = mnist("train"), mnist("test")
    return Reference("mnist", "test", train.pixels, train.labels, test.pixels, test.labels, test.classes)


def stacked_mnist_reference() -> Reference:
    """Return the stacks: trained on 128,000, judged by 26,000 of other digits."""
    train, test = stacked_mnist("train"), stacked_mnist("test")
    return Reference("stacked-mnist", "test", train.pixels, train.labels, test.pixels, test.labels, test.classes)


REFERENCES: dict[str, Callable[[], Reference]] = {"mnist": mnist_reference, "stacked-mnist": stacked_mnist_reference}


def reference_for(config: Config) -> Reference:
    """Return the real pictures that a model of these settings is judged by; raises CardiganError for a source without held-out pictures."""
    if config.data.source not in REFERENCES:
        raise unknown("source to judge by", config.data.source, REFERENCES)
    reference, limit = REFERENCES[config.data.source](), config.data.limit
    if not limit:
        return reference
    trained_on = limited(ImageSource(reference.name, reference.training, reference.training_labels, reference.classes), limit)
    name = f"{reference.name} ({limit:,} to train on)"
    return dataclasses.replace(reference, name=name, training=trained_on.pixels, training_labels=trained_on.labels)


def given_sampler(pixels: Pixels, labels: Int64[Tensor, " label"] | None = None) -> Sampler:
    """Return a sampler of pictures that are there already, in the reference's frame; raises CardiganError for labels of another count."""
    if labels is not None and len(labels) != len(pixels):
        raise CardiganError(f"{len(labels)} labels for {len(pixels)} pictures: expected one each.")
    return Sampler(lambda start, stop: (pixels[start:stop], None if labels is None else labels[start:stop]), available=len(pixels))


def training_sampler(reference: Reference, seed: int = 0) -> Sampler:
    """Return a sampler of real training pictures in random order: what a perfect generator would draw."""
    order = torch.randperm(max(0, len(reference.training) - VALIDATION), generator=stream(seed, "floor", 0))
    return _real(reference.training, reference.training_labels, order, seed)


def held_out_sampler(reference: Reference, seed: int = 0) -> Sampler:
    """Return a sampler of real pictures that were not trained on: what a perfect generator that copies nothing would draw."""
    order = torch.randperm(len(reference.held_out), generator=stream(seed, "floor", 1))
    return _real(reference.held_out, reference.held_out_labels, order, seed)


def _real(pixels: Pixels, labels: Labels, order: Int64[Tensor, " place"], seed: int) -> Sampler:
    return Sampler(lambda start, stop: (pixels[order[start:stop]], labels[order[start:stop]]), seed, available=len(order))


def unframed(pixels: Pixels, data: DataConfig, frame: Frame) -> UInt8[Tensor, "batch _ _ _"]:
    """Return generated pictures in the frame of the real ones: the inverse of the frame they were trained in.

    Raises CardiganError where the real ones have another number of channels, unless they are grey digits.
    """
    if frame == (1, SIDE, SIDE):
        return to_digit_frame(pixels, data)
    channels, height, width = frame
    if pixels.shape[1] != channels:
        raise CardiganError(f"Generated pictures of {pixels.shape[1]} channels beside real ones of {channels}: give a reference of equal channels.")
    if data.fit == "pad" and pixels.shape[2] >= height and pixels.shape[3] >= width:
        top, left = (pixels.shape[2] - height) // 2, (pixels.shape[3] - width) // 2
        return pixels[:, :, top : top + height, left : left + width]
    return resized(pixels, height, width).round().clamp(0, 255).to(torch.uint8)


def frame_text(data: DataConfig, frame: Frame) -> str:
    """Return in words what `unframed` does."""
    drawn = (data.channels, data.height, data.width)
    if drawn == frame:
        return "as generated"
    how = "cropped" if data.fit == "pad" and data.height >= frame[1] and data.width >= frame[2] else "resized bilinearly, antialiased,"
    colour = ", channels averaged" if data.channels != frame[0] else ""
    return f"{data.height}x{data.width}x{data.channels} {how} to {frame[1]}x{frame[2]}{colour}"
