"""The kernel distance, the formula of the KID: unbiased squared MMD with a cubic polynomial kernel.

See arXiv:1801.01401, section 3. Works on any features. Only with Inception features is it a KID.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from cardigan.errors import CardiganError
from cardigan.metrics.statistics import mean_with_error
from cardigan.rng import stream

MAX_SUBSET_SIZE = 1_000
"""Maximum images per side in one subset, as in the paper."""
MIN_SUBSETS = 10
"""Minimum number of subsets, which gives the error to within a quarter.

Smaller sets have smaller subsets; the unbiased estimate allows this.
"""
MIN_IMAGES = 10 * MIN_SUBSETS


def kernel_distance(first: Float[Tensor, "n feature"], second: Float[Tensor, "m feature"]) -> float:
    """Return the unbiased estimate of the squared MMD with k(x, y) = (x.y / d + 1)^3 (arXiv:1801.01401, eq. 4).

    Its mean is 0 for equal distributions. Raises CardiganError for fewer than two rows on a side.
    """
    if min(len(first), len(second)) < 2:
        raise CardiganError(f"A kernel distance of {len(first)} images to {len(second)}: expected at least 2 of each.")
    first, second = first.double(), second.double()
    return (
        _mean_off_diagonal(_polynomial_kernel(first, first))
        + _mean_off_diagonal(_polynomial_kernel(second, second))
        - 2 * float(_polynomial_kernel(first, second).mean())
    )


def kernel_distance_with_error(
    first: Float[Tensor, "n feature"], second: Float[Tensor, "m feature"], seed: int = 0
) -> tuple[float, float]:
    """Return the mean of the distance over subsets, and its standard error.

    The subsets are disjoint, so their values are independent. Overlapping subsets would underestimate the error.
    Raises CardiganError for fewer than 100 images on a side.
    """
    smaller = min(len(first), len(second))
    if smaller < MIN_IMAGES:
        raise CardiganError(
            f"A kernel distance of {len(first)} images to {len(second)}: expected at least {MIN_IMAGES} of each "
            "for its standard error."
        )
    subset_size = min(MAX_SUBSET_SIZE, smaller // MIN_SUBSETS)
    permutations = [
        torch.randperm(len(side), generator=stream(seed, "kernel subsets", index))
        for index, side in enumerate((first, second))
    ]
    values = [
        kernel_distance(
            *(
                side[order[start : start + subset_size]]
                for side, order in zip((first, second), permutations, strict=True)
            )
        )
        for start in range(0, smaller - subset_size + 1, subset_size)
    ]
    return mean_with_error(torch.tensor(values, dtype=torch.float64))


def _polynomial_kernel(
    first: Float64[Tensor, "n feature"], second: Float64[Tensor, "m feature"]
) -> Float64[Tensor, "n m"]:
    return (first @ second.T / first.shape[1] + 1) ** 3


def _mean_off_diagonal(square: Float64[Tensor, "n n"]) -> float:
    count = len(square)
    return float(square.sum() - square.trace()) / (count * (count - 1))
