"""Sums and differences of latents, as in the DCGAN paper. Knows no network."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cardigan.errors import CardiganError

Group = Float[Tensor, "_ _"]
"""The latents of one group; groups may differ in size."""


def latent_arithmetic(add: Sequence[Group], subtract: Sequence[Group] = ()) -> Float[Tensor, "1 latent"]:
    """Return the sum of the means of the groups in `add`, minus the means of those in `subtract` (arXiv:1511.06434, section 6.3.2).

    A mean of several pictures' z keeps what they have in common; one alone is too little to say (the paper takes three).
    """
    if not add:
        raise CardiganError("Nothing is added: give at least one group of seeds with --add.")
    if any(len(group) == 0 for group in [*add, *subtract]):
        raise CardiganError("A group is empty: give each at least one seed.")
    plus = torch.stack([group.double().mean(0) for group in add]).sum(0)
    minus = torch.stack([group.double().mean(0) for group in subtract]).sum(0) if subtract else torch.zeros_like(plus)
    return (plus - minus)[None].float()


def noisy_copies(
    z: Float[Tensor, "1 latent"], count: int, seed: int = 0, scale: float = 0.25
) -> Float[Tensor, "{count} latent"]:
    """Return `count` latents, the first z itself, the others with uniform noise within +-scale added (section 6.3.2, figure 7)."""
    from cardigan.rng import stream

    noise = (torch.rand(count, z.shape[1], generator=stream(seed, "nearby", 0)) * 2 - 1) * scale
    noise[0] = 0
    return z + noise
