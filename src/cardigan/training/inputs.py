"""What one step starts from: which images, which random numbers, how far schedules have come.

A pure function of (seed, images_seen). Drawn on the host for the whole batch, so that it is the same for any number of
processes and any device, and packed into one buffer, so that one copy brings all of it to the device.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from cardigan.config import Config
from cardigan.data.batches import Batch, Batches
from cardigan.data.feed import Feed
from cardigan.data.source import framed
from cardigan.latents import training_latents
from cardigan.objective.augment import numbers_needed
from cardigan.rng import counter_normal, stream, stream_keys
from cardigan.training.devices import Devices
from cardigan.training.schedule import average_weight, penalty_factor
from cardigan.training.steps import Chance


class Inputs(NamedTuple):
    """Tensors only, so that a recorded step can read them where they lie; what this config does not need is empty."""

    indices: torch.Tensor
    """Positions of real images that lie on the device. Empty where the images themselves come, in `pixels` and `labels`."""
    pixels: torch.Tensor
    labels: torch.Tensor
    z: torch.Tensor
    average_weight: torch.Tensor
    penalty_factor: torch.Tensor
    augment_real: torch.Tensor
    augment_fake: torch.Tensor
    mix: torch.Tensor
    noise_keys: torch.Tensor
    """A key for each image, from which the device computes its noise (`rng.counter_normal`)."""
    buffer: torch.Tensor = torch.empty(0, dtype=torch.uint8)
    """The bytes of all the others, which are views of it once they are packed."""


PER_IMAGE = ("indices", "pixels", "labels", "z", "augment_real", "augment_fake", "mix", "noise_keys")
"""Each process has its own share of these, and each part of a batch its own rows."""
ALIGNMENT = 16
"""Bytes at a multiple of which each tensor begins in the buffer."""


def inputs_at(config: Config, batches: Batches, images_seen: int, devices: Devices, feed: Feed | None = None) -> Inputs:
    """Return what this process's step starts from, packed in host memory, which is pinned for a GPU.

    Real images come from `feed` if there is one.
    """
    batch, seed = config.batch, config.seed
    columns, nothing = numbers_needed(config.augment.pipeline), torch.empty(0)
    augmenting, changes = stream(seed, "augment", images_seen), (batch, columns) if columns else (0,)
    drawn = Inputs(
        indices=torch.empty(0, dtype=torch.long) if feed else batches.order.at(images_seen, batch),
        pixels=nothing,
        labels=nothing,
        z=training_latents(config.latent.distribution, batch, config.latent.size, seed, images_seen),
        average_weight=torch.tensor(average_weight(config.average, images_seen + batch, batch * config.discriminator_steps)),
        penalty_factor=torch.tensor(penalty_factor(config.objective, images_seen)),
        augment_real=torch.rand(changes, generator=augmenting),
        augment_fake=torch.rand(changes, generator=augmenting),
        mix=_mix(config, images_seen),
        noise_keys=stream_keys(batch if config.objective.dragan else 0, stream(seed, "noise", images_seen)),
    )
    share = devices.processes.share(batch)
    own = {name: getattr(drawn, name)[share] for name in PER_IMAGE}
    if feed is not None:
        own["pixels"], own["labels"] = feed.at(images_seen)
    return packed(drawn._replace(**own), pinned=devices.device.type == "cuda")


def packed(inputs: Inputs, pinned: bool) -> Inputs:
    """Return the inputs as views of one buffer in host memory. A GPU copies from pinned memory while the host goes on."""
    sizes = [_aligned(tensor.nbytes) for tensor in _tensors(inputs)]
    views = unpacked(torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=pinned), inputs)
    for view, tensor in zip(_tensors(views), _tensors(inputs), strict=True):
        view.copy_(tensor)
    return views


def unpacked(buffer: torch.Tensor, like: Inputs) -> Inputs:
    """Return the buffer's contents as views with the shapes and types of `like`, on the buffer's device."""
    views, start = [], 0
    for tensor in _tensors(like):
        views.append(buffer[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape))
        start += _aligned(tensor.nbytes)
    return Inputs(*views, buffer=buffer)


def sent(inputs: Inputs, device: torch.device) -> Inputs:
    """Return packed inputs on the device, by one copy that the host does not wait for."""
    return unpacked(inputs.buffer.to(device, non_blocking=True), inputs)


def _tensors(inputs: Inputs) -> Sequence[torch.Tensor]:
    return inputs[:-1]


def _aligned(size: int) -> int:
    return math.ceil(size / ALIGNMENT) * ALIGNMENT


def _mix(config: Config, images_seen: int) -> torch.Tensor:
    """Return a number for each image, the same for all images of a pack (arXiv:1704.00028, eq. 3)."""
    packs = config.batch // config.packing if config.objective.wgan_gp else 0
    return torch.rand(packs, generator=stream(config.seed, "mix", images_seen)).repeat_interleave(config.packing)


def in_parts(inputs: Inputs, batches: Batches, parts: int) -> list[tuple[Batch, Chance]]:
    """Return the step's images and random numbers, as many parts as gradients are accumulated over."""
    size, data = len(inputs.z) // parts, batches.data

    def part(start: int) -> tuple[Batch, Chance]:
        own = {name: getattr(inputs, name)[start : start + size] for name in PER_IMAGE}
        indices, pixels, labels, keys = (own.pop(name) for name in ("indices", "pixels", "labels", "noise_keys"))
        images = Batch(framed(pixels, data), labels) if len(pixels) else batches.pictures(indices)
        noise = counter_normal(keys, data.channels * data.height * data.width) if len(keys) else None
        numbers = {name: tensor if tensor.numel() else None for name, tensor in own.items() if name != "z"}
        shaped = None if noise is None else noise.view(-1, data.channels, data.height, data.width)
        return images, Chance(own["z"], **numbers, noise=shaped)

    return [part(start) for start in range(0, size * parts, size)]
