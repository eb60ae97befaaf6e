"""Latents and classes from a caller's own `torch.Generator`, one picture after another. Knows no network.

What is drawn by a seed instead is in `sampling.py`.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch

from cardigan.errors import CardiganError
from cardigan.latents.sampling import LATENTS
from cardigan.shapes import Images, Labels, Latents

RandomGenerators: TypeAlias = torch.Generator | Sequence[torch.Generator] | None
"""One for all pictures, one for each, or PyTorch's own."""


def sample_from_generator(
    generator: RandomGenerators, count: int, distribution: str, latent_size: int, num_classes: int
) -> tuple[Latents, Labels | None]:
    """Return `count` latents [count, size] and classes, if there are any, uniform over all of them.

    A picture's class is drawn after its latent and before the next one's, so that more pictures change none of the first.
    Raises CardiganError for a list of generators that are not one for each.
    """
    pairs = [
        _sample_one(one or torch.default_generator, distribution, latent_size, max(num_classes, 1))
        for one in _generator_per_sample(generator, count)
    ]
    return torch.cat([z for z, _ in pairs]), torch.cat([label for _, label in pairs]) if num_classes else None


def _sample_one(
    generator: torch.Generator, distribution: str, latent_size: int, num_classes: int
) -> tuple[Latents, Labels]:
    with torch.device(generator.device):  # where its numbers are made; they go to the model's device from there
        z = LATENTS[distribution]((1, latent_size), generator)
        return z.cpu(), (
            torch.randint(num_classes, (1,), generator=generator)
            if num_classes > 1
            else z.new_zeros(1, dtype=torch.long)
        ).cpu()


def validate_latents(latents: torch.Tensor | np.ndarray, count: int, latent_size: int) -> Latents:
    """Return latents [n, size] as float32; raises CardiganError for another shape, n unlike a count above 1, and what is not finite."""
    try:
        z = torch.as_tensor(latents)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CardiganError(
            f"latents are a {type(latents).__name__}: expected an array or a tensor of floats, [n, {latent_size}]."
        ) from error
    if (
        not z.is_floating_point()
        or z.dim() != 2
        or z.shape[1] != latent_size
        or len(z) == 0
        or count not in (1, len(z))
    ):
        number = "n" if count == 1 else count
        raise CardiganError(
            f"latents are {str(z.dtype).removeprefix('torch.')} {list(z.shape)}: expected floats of shape [{number}, {latent_size}]."
        )
    if not bool(z.isfinite().all()):
        raise CardiganError(
            "latents hold numbers that are not finite: expected numbers such as the latent distribution gives."
        )
    return z.detach().float().cpu()


def _generator_per_sample(generator: RandomGenerators, count: int) -> Sequence[torch.Generator | None]:
    if generator is None or isinstance(generator, torch.Generator):
        return [generator] * count
    if not isinstance(generator, Sequence):
        raise CardiganError(
            f"generator is a {type(generator).__name__}: give one torch.Generator, or a list with one for each picture."
        )
    if len(generator) != count or not all(isinstance(one, torch.Generator) for one in generator):
        raise CardiganError(
            f"{len(generator)} generators for {count} pictures: give one torch.Generator, or a list with one for each picture."
        )
    return list(generator)


def to_unit_range(images: Images) -> Images:
    """Return pictures in [0, 1] instead of [-1, 1], what lies outside clipped."""
    return ((images.float() + 1) / 2).clamp(0, 1)
