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

from cardigan.config import DataConfig
from cardigan.errors import CardiganError
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
    extractor: str = "digits"
    """What judges such pictures unless another is asked for."""
    known_identity: str = ""
    """A name for exactly these pictures, where one is known without reading them all."""

    @property
    def frame(self) -> Frame:
        return (self.held_out.shape[1], self.held_out.shape[2], self.held_out.shape[3])

    @cached_property
    def identity(self) -> str:
        """SHA-256 of all pixels and labels, or of what is known to determine them."""
        if self.known_identity:
            return hashlib.sha256(self.known_identity.encode()).hexdigest()
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
    truncation: float = 1.0
    images_seen: int | None = None
    trained_on: str = "train"
    available: int | None = field(default=None)
    """How many there are; None is any number."""


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
    if tuple(pixels.shape[1:]) == frame:
        return pixels
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
