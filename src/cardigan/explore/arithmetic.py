"""Sums and differences of latents or class weights, as in the DCGAN paper. Independent of any network."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cardigan.errors import CardiganError

Group = Float[Tensor, "_ _"]
"""The latents of one group, or its class weights; groups may differ in size."""


def latent_arithmetic(add: Sequence[Group], subtract: Sequence[Group] = ()) -> Float[Tensor, "1 size"]:
    """Return the sum of the group means in `add`, minus the group means in `subtract`.

    Follows arXiv:1511.06434, section 6.3.2. The mean z of several images keeps what they have in common; a single z is
    too noisy (the paper averages three).
    """
    if not add:
        raise CardiganError("No group to add: give at least one group of seeds with --add.")
    if any(len(group) == 0 for group in [*add, *subtract]):
        raise CardiganError("A group is empty: give each group at least one seed.")
    plus = torch.stack([group.double().mean(0) for group in add]).sum(0)
    minus = torch.stack([group.double().mean(0) for group in subtract]).sum(0) if subtract else torch.zeros_like(plus)
    return (plus - minus)[None].float()


def noisy_copies(
    z: Float[Tensor, "1 latent"], count: int, seed: int = 0, scale: float = 0.25
) -> Float[Tensor, "{count} latent"]:
    """Return `count` latents: z itself, then z plus uniform noise in [-scale, scale] (section 6.3.2, figure 7)."""
    from cardigan.rng import stream

    noise = (torch.rand(count, z.shape[1], generator=stream(seed, "nearby", 0)) * 2 - 1) * scale
    noise[0] = 0
    return z + noise
