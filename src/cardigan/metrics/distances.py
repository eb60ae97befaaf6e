"""Distances between all pairs of two sets of rows. Does not know what the rows are."""

from jaxtyping import Float
from torch import Tensor


def squared_distances(first: Float[Tensor, "n value"], second: Float[Tensor, "m value"]) -> Float[Tensor, "n m"]:
    """Return |x - y|^2 for all pairs by one matrix product, clamped to at least 0, in the type of the rows."""
    norms = first.square().sum(1)[:, None] + second.square().sum(1)
    return norms.addmm_(first, second.T, alpha=-2).clamp_(min=0)
