"""Precision, recall (arXiv:1904.06991), density and coverage (arXiv:2002.09797) of two sets of features.

The computation is exact, in float64, one tile of distances at a time.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from cardigan.errors import CardiganError
from cardigan.metrics.distances import squared_distances

TILE_SIZE = 1_000
"""Rows of the distance matrix in memory at a time."""
NUM_NEIGHBORS = 5
"""k of all four metrics, as arXiv:2002.09797 recommends. arXiv:1904.06991 used 3."""


@dataclass(frozen=True)
class Prdc:
    """The contribution of each image. The metrics are the means."""

    precision: Float64[Tensor, " generated"]
    """1 where a generated image lies in a real ball."""
    recall: Float64[Tensor, " real"]
    """1 where a real image lies in a generated ball."""
    density: Float64[Tensor, " generated"]
    """The number of real balls that contain a generated image, divided by k. The mean may exceed 1."""
    coverage: Float64[Tensor, " real"]
    """1 where a real ball contains a generated image."""


def prdc(
    real: Float[Tensor, "real feature"],
    generated: Float[Tensor, "generated feature"],
    num_neighbors: int = NUM_NEIGHBORS,
) -> Prdc:
    """Return each image's contribution to precision, recall, density and coverage.

    See arXiv:1904.06991, eq. 1 and 2, and arXiv:2002.09797, eq. 3 and 5. A ball around an image reaches to its k-th
    nearest neighbor in the same set, excluding itself. Balls are closed. Raises CardiganError for sets with fewer than
    k + 1 images.
    """
    smaller = min(len(real), len(generated))
    if smaller <= num_neighbors:
        raise CardiganError(
            f"{smaller} images: {num_neighbors} nearest neighbors need at least {num_neighbors + 1} on each side."
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
        distances[rows_in_tile, start + rows_in_tile] = torch.inf  # excludes the row itself, not duplicates of it
        kth_distances.append(distances.kthvalue(num_neighbors, dim=1).values)
    return torch.cat(kth_distances)
