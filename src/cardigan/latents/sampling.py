"""What a generator starts from: random numbers z and class labels y, drawn from streams.

Does not know networks. To use your own distribution, add a function to `LATENTS`; nothing else has to change.
"""

from collections.abc import Callable, Sequence

import torch

from cardigan.errors import CardiganError
from cardigan.rng import stream
from cardigan.shapes import Labels, Latents


def normal(shape: tuple[int, int], generator: torch.Generator) -> Latents:
    """Return draws from N(0, 1), as in the tutorial."""
    return torch.randn(shape, generator=generator)


def uniform(shape: tuple[int, int], generator: torch.Generator) -> Latents:
    """Return draws from the uniform distribution on [-1, 1], as in the DCGAN paper (arXiv:1511.06434)."""
    return torch.rand(shape, generator=generator) * 2 - 1


LATENTS: dict[str, Callable[[tuple[int, int], torch.Generator], Latents]] = {"normal": normal, "uniform": uniform}


def training_latents(distribution: str, batch_size: int, latent_size: int, seed: int, images_seen: int) -> Latents:
    """Return the z of the training step that begins at `images_seen`, shape [batch, size]."""
    return LATENTS[distribution]((batch_size, latent_size), stream(seed, "latents", images_seen))


def sample_latents(distribution: str, keys: Sequence[tuple[int, int]], latent_size: int) -> Latents:
    """Return one z per key (seed, number), each a function of its key alone: asking for more changes none of the first."""
    return torch.cat([LATENTS[distribution]((1, latent_size), stream(seed, "sample", number)) for seed, number in keys])


def sample_labels(keys: Sequence[tuple[int, int]], num_classes: int) -> Labels:
    """Return one class per key (seed, number), uniform over the classes, each a function of its key alone."""
    return torch.cat(
        [torch.randint(num_classes, (1,), generator=stream(seed, "label", number)) for seed, number in keys]
    )


def truncate(z: Latents, truncation: float) -> Latents:
    """Return z moved toward the middle of its distribution: 1 leaves it, 0 makes every picture the average one.

    The truncation trick of arXiv:1812.04948, section B (linear interpolation toward the mean), in the space of z, whose mean is 0.
    Less than 1 gives more typical, less varied pictures.
    """
    if not 0 <= truncation <= 1:
        raise CardiganError(
            f"truncation is {truncation!r}: expected a number from 0 (the average picture) to 1 (as trained)."
        )
    return z * truncation
