"""What one step starts from: which pictures, which random numbers, how far schedules have come. A pure function of (seed, images_seen).

Drawn for the whole batch on the CPU, so that every number of processes and every device sees the same.
"""

from typing import NamedTuple

import torch

from cardigan.config import Config
from cardigan.data.batches import Batch, Batches
from cardigan.data.feed import Feed
from cardigan.data.source import framed
from cardigan.latents import training_latents
from cardigan.objective.augment import numbers_needed
from cardigan.rng import stream
from cardigan.training.devices import Devices
from cardigan.training.schedule import average_weight, penalty_factor
from cardigan.training.steps import Chance


class Inputs(NamedTuple):
    """Tensors only, so that a recorded step can read them where they lie; what this config does not need is empty."""

    indices: torch.Tensor
    """Positions of real pictures that lie on the device; otherwise the pictures themselves come here, as they are stored, and their classes."""
    pixels: torch.Tensor
    labels: torch.Tensor
    z: torch.Tensor
    average_weight: torch.Tensor
    penalty_factor: torch.Tensor
    augment_real: torch.Tensor
    augment_fake: torch.Tensor
    mix: torch.Tensor
    noise: torch.Tensor


PER_PICTURE = ("indices", "pixels", "labels", "z", "augment_real", "augment_fake", "mix", "noise")


def inputs_at(config: Config, batches: Batches, images_seen: int, devices: Devices, feed: Feed | None = None) -> Inputs:
    """Return this process's share of what the step after `images_seen` starts from, on the device; its pictures come from `feed` if there is one."""
    batch, seed, data = config.batch, config.seed, config.data
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
        noise=torch.randn(
            (batch, data.channels, data.height, data.width) if config.objective.dragan else (0,), generator=stream(seed, "noise", images_seen)
        ),
    )
    share = devices.processes.share(batch)
    own = {name: getattr(drawn, name)[share] for name in PER_PICTURE}
    if feed is not None:
        own["pixels"], own["labels"] = feed.at(images_seen)
    return Inputs(*(devices.send(tensor) for tensor in drawn._replace(**own)))


def _mix(config: Config, images_seen: int) -> torch.Tensor:
    """Return a number for each picture, the same for those of a pack: what D judges together lies on one line (arXiv:1704.00028, eq. 3)."""
    packs = config.batch // config.packing if config.objective.wgan_gp else 0
    return torch.rand(packs, generator=stream(config.seed, "mix", images_seen)).repeat_interleave(config.packing)


def in_parts(inputs: Inputs, batches: Batches, parts: int) -> list[tuple[Batch, Chance]]:
    """Return the step's pictures and random numbers, as many parts as gradients are accumulated over."""
    size = len(inputs.z) // parts

    def part(start: int) -> tuple[Batch, Chance]:
        own = {name: getattr(inputs, name)[start : start + size] for name in PER_PICTURE}
        indices, pixels, labels = (own.pop(name) for name in ("indices", "pixels", "labels"))
        pictures = Batch(framed(pixels, batches.data), labels) if len(pixels) else batches.pictures(indices)
        return pictures, Chance(own.pop("z"), **{name: tensor if tensor.numel() else None for name, tensor in own.items()})

    return [part(start) for start in range(0, size * parts, size)]
