"""Precision, recall (arXiv:1904.06991), density and coverage (arXiv:2002.09797): how much two sets of features overlap.

Knows balls around pictures that reach to a k-th neighbour; does not know what the features are. Exact, float64, one tile of distances at a time.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from cardigan.errors import CardiganError

TILE_SIZE = 1_000
"""Rows of distances held at a time."""
NUM_NEIGHBORS = 5
"""The k of all four numbers: what arXiv:2002.09797 recommends; arXiv:1904.06991 used 3."""


@dataclass(frozen=True)
class Prdc:
    """What each picture contributes; the four numbers are the means."""

    precision: Float64[Tensor, " generated"]
    """1 where a generated picture lies in some real ball."""
    recall: Float64[Tensor, " real"]
    """1 where a real picture lies in some generated ball."""
    density: Float64[Tensor, " generated"]
    """In how many real balls a generated picture lies, divided by k: its mean may exceed 1."""
    coverage: Float64[Tensor, " real"]
    """1 where a real ball holds some generated picture."""


def prdc(
    real: Float[Tensor, "real feature"],
    generated: Float[Tensor, "generated feature"],
    num_neighbors: int = NUM_NEIGHBORS,
) -> Prdc:
    """Return each picture's part in precision, recall (arXiv:1904.06991, eq. 1, 2), density and coverage (arXiv:2002.09797, eq. 3, 5).

    A ball reaches from a picture to its k-th nearest neighbour of the same set, itself not counted; what lies on its surface lies in it.
    Raises CardiganError for sets too small to have k neighbours.
    """
    smaller = min(len(real), len(generated))
    if smaller <= num_neighbors:
        raise CardiganError(
            f"{smaller} pictures: balls that reach to neighbour {num_neighbors} need at least {num_neighbors + 1} on each side."
        )
    real, generated = real.double(), generated.double()
    real_radii, generated_radii = knn_radii(real, num_neighbors), knn_radii(generated, num_neighbors)
    num_real_balls, is_recalled, is_covered = (
        [],
        torch.zeros(len(real), dtype=torch.bool),
        torch.zeros(len(real), dtype=torch.bool),
    )
    for start in range(0, len(generated), TILE_SIZE):
        rows = slice(start, start + TILE_SIZE)
        distances = squared_distances(generated[rows], real)
        inside = distances <= real_radii
        num_real_balls.append(inside.sum(1))
        is_covered |= inside.any(0)
        is_recalled |= (distances <= generated_radii[rows, None]).any(0)
    counts = torch.cat(num_real_balls).double()
    return Prdc((counts > 0).double(), is_recalled.double(), counts / num_neighbors, is_covered.double())


def knn_radii(rows: Float64[Tensor, "n feature"], num_neighbors: int) -> Float64[Tensor, " n"]:
    """Return the squared distance of each row to its k-th nearest other row."""
    kth_distances = []
    for start in range(0, len(rows), TILE_SIZE):
        distances = squared_distances(rows[start : start + TILE_SIZE], rows)
        rows_in_tile = torch.arange(len(distances))
        distances[rows_in_tile, start + rows_in_tile] = (
            torch.inf
        )  # a row is no neighbour of itself, but an equal one is
        kth_distances.append(distances.kthvalue(num_neighbors, dim=1).values)
    return torch.cat(kth_distances)


def squared_distances(
    first: Float64[Tensor, "n feature"], second: Float64[Tensor, "m feature"]
) -> Float64[Tensor, "n m"]:
    """Return |x - y|^2 for all pairs, by one matrix product; never below 0."""
    norms = first.square().sum(1)[:, None] + second.square().sum(1)
    return norms.addmm_(first, second.T, alpha=-2).clamp_(min=0)
