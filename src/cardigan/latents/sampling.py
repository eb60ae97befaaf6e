"""What a generator starts from: random numbers z and class labels y, drawn from streams.

Does not know networks. To use your own distribution, add a function to `LATENTS`; nothing else has to change.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch

from cardigan.errors import CardiganError, unknown
from cardigan.rng import stream, streams
from cardigan.shapes import Labels, Latents


def normal(shape: tuple[int, int], generator: torch.Generator) -> Latents:
    """Return draws from N(0, 1), as in the tutorial."""
    return torch.randn(shape, generator=generator)


def uniform(shape: tuple[int, int], generator: torch.Generator) -> Latents:
    """Return draws from the uniform distribution on [-1, 1], as in the DCGAN paper (arXiv:1511.06434)."""
    return torch.rand(shape, generator=generator) * 2 - 1


LatentFn = Callable[[tuple[int, int], torch.Generator], Latents]
"""From a shape [batch, latent size] and a random generator to latents."""
LATENTS: dict[str, LatentFn] = {"normal": normal, "uniform": uniform}


def find_latent(distribution: str) -> LatentFn:
    """Return a latent distribution by its name; raises CardiganError for an unknown one."""
    if distribution not in LATENTS:
        raise unknown("latent distribution", distribution, LATENTS)
    return LATENTS[distribution]


def training_latents(distribution: str, batch_size: int, latent_size: int, seed: int, images_seen: int) -> Latents:
    """Return the z of the training step that begins at `images_seen`, shape [batch_size, latent_size].

    `distribution` is normal, uniform or a name of your own in `LATENTS`. `batch_size` and `latent_size` are the shape.
    `seed` is the run's: equal seeds give equal latents. Raises CardiganError for an unknown distribution.

    Examples:
        >>> import cardigan
        >>> cardigan.training_latents("normal", batch_size=64, latent_size=100, seed=0, images_seen=640).shape
        torch.Size([64, 100])
    """
    return find_latent(distribution)((batch_size, latent_size), stream(seed, "latents", images_seen))


def sample_latents(distribution: str, keys: Sequence[tuple[int, int]], latent_size: int) -> Latents:
    """Return one z per key (seed, number), shape [len(keys), latent_size].

    `distribution` is normal, uniform or a name of your own in `LATENTS`; `latent_size` is the length of a z. Each z
    depends on its key alone, so more `keys` change none of the first. Raises CardiganError for an unknown distribution.

    Examples:
        >>> import cardigan
        >>> z = cardigan.sample_latents("normal", [(0, 0), (0, 1), (7, 0)], latent_size=100)
        >>> z.shape
        torch.Size([3, 100])
        >>> bool((z[:1] == cardigan.sample_latents("normal", [(0, 0)], 100)).all())
        True
    """
    draw = find_latent(distribution)
    return torch.cat([draw((1, latent_size), each) for each in streams("sample", keys)])


def sample_labels(keys: Sequence[tuple[int, int]], num_classes: int, counts: Sequence[int] = ()) -> Labels:
    """Return one class per key (seed, number), each a function of its key alone.

    Uniform over the classes, or in proportion to these `counts`.
    """
    limit = sum(counts) or num_classes
    drawn = torch.cat([torch.randint(limit, (1,), generator=each) for each in streams("label", keys)])
    return _class_of(drawn, counts)


def draw_labels(number: int, num_classes: int, counts: Sequence[int], generator: torch.Generator) -> Labels:
    """Return `number` random classes, uniform over the classes or in proportion to these `counts`."""
    return _class_of(torch.randint(sum(counts) or num_classes, (number,), generator=generator), counts)


def _class_of(drawn: Labels, counts: Sequence[int]) -> Labels:
    """Return the classes of numbers drawn below `sum(counts)`; without counts, each number is its class."""
    if not counts:
        return drawn
    return torch.searchsorted(torch.tensor(counts, device=drawn.device).cumsum(0), drawn, right=True)


def truncate(z: Latents, truncation: float) -> Latents:
    """Return z moved toward the middle of its distribution: 1 leaves it, 0 makes every image the average one.

    The truncation trick of arXiv:1812.04948, section B (linear interpolation toward the mean), in the space of z,
    whose mean is 0. Less than 1 gives more typical, less varied images.
    """
    if not 0 <= truncation <= 1:
        raise CardiganError(
            f"truncation is {truncation!r}: expected a number from 0 (the average image) to 1 (as trained)."
        )
    return z * truncation


RandomGenerators: TypeAlias = torch.Generator | Sequence[torch.Generator] | None
"""One for all images, one per image, or PyTorch's global one."""


def sample_from_generator(
    generator: RandomGenerators,
    count: int,
    distribution: str,
    latent_size: int,
    num_classes: int,
    counts: Sequence[int] = (),
) -> tuple[Latents, Labels | None]:
    """Return `count` latents [count, size] and classes, if there are any, as often as `sample_labels` draws them.

    An image's class is drawn after its latent and before the next latent, so that more images change none of the first.
    Raises CardiganError for a list of generators that are not one for each.
    """
    pairs = [
        _sample_one(one or torch.default_generator, distribution, latent_size, max(num_classes, 1), counts)
        for one in _generator_per_sample(generator, count)
    ]
    return torch.cat([z for z, _ in pairs]), torch.cat([label for _, label in pairs]) if num_classes else None


def _sample_one(
    generator: torch.Generator, distribution: str, latent_size: int, num_classes: int, counts: Sequence[int]
) -> tuple[Latents, Labels]:
    with torch.device(generator.device):  # where its numbers are made; they go to the model's device from there
        z = find_latent(distribution)((1, latent_size), generator)
        return z.cpu(), (
            draw_labels(1, num_classes, counts, generator) if num_classes > 1 else z.new_zeros(1, dtype=torch.long)
        ).cpu()


def validate_latents(latents: torch.Tensor | np.ndarray, count: int, latent_size: int) -> Latents:
    """Return latents [n, size] as float32.

    Raises CardiganError for another shape, an n other than `count` (unless that is 1), and values that are not finite.
    """
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
            f"latents are {str(z.dtype).removeprefix('torch.')} {list(z.shape)}: "
            f"expected floats of shape [{number}, {latent_size}]."
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
            f"generator is a {type(generator).__name__}: give one torch.Generator, or a list with one per image."
        )
    if len(generator) != count or not all(isinstance(one, torch.Generator) for one in generator):
        raise CardiganError(
            f"{len(generator)} generators for {count} images: give one torch.Generator, or a list with one per image."
        )
    return list(generator)
