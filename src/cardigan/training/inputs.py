"""Inputs of one step: image indices, random numbers and schedule values.

A pure function of (seed, images_seen). Drawn on the host for the whole batch, so that it is the same for any number of
processes and any device, and packed into one buffer, so that one copy brings all of it to the device.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import torch

from cardigan.config import Config
from cardigan.data.batches import Batch, Batches
from cardigan.data.prefetch import Prefetcher
from cardigan.data.resize import to_training_shape
from cardigan.latents.sampling import training_latents
from cardigan.objective.augment import num_draws
from cardigan.objective.penalties import find_penalty
from cardigan.rng import counter_normal, stream, stream_keys
from cardigan.training.devices import Devices
from cardigan.training.schedule import ema_weight, penalty_factor
from cardigan.training.step_types import RandomDraws


class StepInputs(NamedTuple):
    """Tensors only, so that a CUDA graph can read them in place. Tensors that this config does not need are empty."""

    indices: torch.Tensor
    """Positions of real images that lie on the device. Empty where the images themselves come, in `pixels` and
    `labels`."""
    pixels: torch.Tensor
    labels: torch.Tensor
    z: torch.Tensor
    ema_weight: torch.Tensor
    penalty_factor: torch.Tensor
    augment_real: torch.Tensor
    augment_fake: torch.Tensor
    interpolation: torch.Tensor
    noise_keys: torch.Tensor
    """A key for each image, from which the device computes its noise (`rng.counter_normal`)."""
    buffer: torch.Tensor = torch.empty(0, dtype=torch.uint8)
    """The bytes of all the others, which are views of it once they are packed."""


PER_IMAGE = ("indices", "pixels", "labels", "z", "augment_real", "augment_fake", "interpolation", "noise_keys")
"""Each process gets its rows of these, and each microbatch its part."""
ALIGNMENT = 16
"""Alignment of each tensor in the buffer, in bytes."""


def step_inputs(
    config: Config, batches: Batches, images_seen: int, devices: Devices, prefetcher: Prefetcher | None = None
) -> StepInputs:
    """Return the inputs of this process's step, packed in host memory (pinned for a GPU).

    Real images come from `prefetcher` if there is one.
    """
    batch_size, seed = config.batch_size, config.seed
    num_columns, empty = num_draws(config.augment.operation_names), torch.empty(0)
    augment_rng, augment_shape = (
        stream(seed, "augment", images_seen),
        (batch_size, num_columns) if num_columns else (0,),
    )
    inputs = StepInputs(
        indices=torch.empty(0, dtype=torch.long) if prefetcher else batches.sampler.indices_at(images_seen, batch_size),
        pixels=empty,
        labels=empty,
        z=training_latents(config.latent.distribution, batch_size, config.latent.size, seed, images_seen),
        ema_weight=torch.tensor(ema_weight(config.ema, images_seen + batch_size, batch_size * config.n_critic)),
        penalty_factor=torch.tensor(penalty_factor(config.objective, images_seen)),
        augment_real=torch.rand(augment_shape, generator=augment_rng),
        augment_fake=torch.rand(augment_shape, generator=augment_rng),
        interpolation=_interpolation_weights(config, images_seen),
        noise_keys=stream_keys(batch_size if _needs(config, "noise") else 0, stream(seed, "noise", images_seen)),
    )
    local_slice = devices.process_group.local_slice(batch_size)
    local = {name: getattr(inputs, name)[local_slice] for name in PER_IMAGE}
    if prefetcher is not None:
        local["pixels"], local["labels"] = prefetcher.batch_at(images_seen)
    return pack(inputs._replace(**local), pinned=devices.device.type == "cuda")


def pack(inputs: StepInputs, pinned: bool) -> StepInputs:
    """Return the inputs as views of one buffer in host memory. A GPU copies from pinned memory in the background."""
    sizes = [_round_up(tensor.nbytes) for tensor in _tensors(inputs)]
    views = unpack(torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=pinned), inputs)
    for view, tensor in zip(_tensors(views), _tensors(inputs), strict=True):
        view.copy_(tensor)
    return views


def unpack(buffer: torch.Tensor, like: StepInputs) -> StepInputs:
    """Return the buffer's contents as views with the shapes and types of `like`, on the buffer's device."""
    views, start = [], 0
    for tensor in _tensors(like):
        views.append(buffer[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape))
        start += _round_up(tensor.nbytes)
    return StepInputs(*views, buffer=buffer)


def to_device(inputs: StepInputs, device: torch.device) -> StepInputs:
    """Return packed inputs on the device, by one copy that the host does not wait for."""
    return unpack(inputs.buffer.to(device, non_blocking=True), inputs)


def _tensors(inputs: StepInputs) -> Sequence[torch.Tensor]:
    return inputs[:-1]


def _round_up(size: int) -> int:
    return math.ceil(size / ALIGNMENT) * ALIGNMENT


def _needs(config: Config, random_input: Literal["interpolation", "noise"]) -> bool:
    """Return whether a penalty of this run reads these random numbers."""
    return any(random_input in find_penalty(name).random_inputs for name in config.objective.penalties)


def _interpolation_weights(config: Config, images_seen: int) -> torch.Tensor:
    """Return a number for each image, the same for all images of a pack (arXiv:1704.00028, eq. 3)."""
    packs = config.batch_size // config.pac if _needs(config, "interpolation") else 0
    return torch.rand(packs, generator=stream(config.seed, "mix", images_seen)).repeat_interleave(config.pac)


def split_microbatches(
    inputs: StepInputs, batches: Batches, num_microbatches: int, rank: int = 0
) -> list[tuple[Batch, RandomDraws]]:
    """Return the images and random numbers of this process's step, split into microbatches."""
    microbatch_size, data = len(inputs.z) // num_microbatches, batches.data

    def microbatch(start: int) -> tuple[Batch, RandomDraws]:
        tensors = {name: getattr(inputs, name)[start : start + microbatch_size] for name in PER_IMAGE}
        indices, pixels, labels, keys = (tensors.pop(name) for name in ("indices", "pixels", "labels", "noise_keys"))
        images = Batch(to_training_shape(pixels, data), labels) if len(pixels) else batches.batch_from_indices(indices)
        noise = counter_normal(keys, data.channels * data.height * data.width) if len(keys) else None
        numbers = {name: tensor if tensor.numel() else None for name, tensor in tensors.items() if name != "z"}
        shaped = None if noise is None else noise.view(-1, data.channels, data.height, data.width)
        images = replace(images, first=rank * len(inputs.z) + start)
        return images, RandomDraws(tensors["z"], **numbers, noise=shaped)

    return [microbatch(start) for start in range(0, microbatch_size * num_microbatches, microbatch_size)]
