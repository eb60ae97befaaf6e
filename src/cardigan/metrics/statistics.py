"""Means, covariances and standard errors in float64, computed chunk by chunk."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from cardigan.errors import CardiganError
from cardigan.metrics.frechet import Gaussian, frechet_distance
from cardigan.rng import stream

NUM_BLOCKS = 20
"""Blocks of a jackknife. The relative error of the standard error is 1 / sqrt(2 (NUM_BLOCKS - 1)), 16 %."""
NUM_RESAMPLES = 200
"""Bootstrap resamples for metrics of class counts."""


@dataclass(frozen=True)
class Moments:
    """Row count, mean, and an upper triangular R with R^T R equal to the sum of (row - mean)(row - mean)^T."""

    count: int
    mean: Float64[Tensor, " feature"]
    root: Float64[Tensor, "rank feature"]


def moments(rows: Float[Tensor, "n feature"]) -> Moments:
    """Return the moments of a chunk of rows. Raises CardiganError for 0 rows."""
    if len(rows) == 0:
        raise CardiganError("A distribution of 0 images: expected at least 1.")
    rows = rows.double()
    mean = rows.mean(0)
    return Moments(len(rows), mean, _qr_factor(rows - mean))


def merge_moments(first: Moments, second: Moments) -> Moments:
    """Return the moments of both sets of rows together (Chan, Golub, LeVeque 1979, eq. 2.1).

    QR factors replace covariances, which avoids squaring.
    """
    count = first.count + second.count
    shift = second.mean - first.mean
    between = shift * math.sqrt(first.count * second.count / count)
    return Moments(
        count,
        first.mean + shift * (second.count / count),
        _qr_factor(torch.cat([first.root, second.root, between[None]])),
    )


def streaming_moments(chunks: Iterable[Float[Tensor, "_ feature"]]) -> Moments:
    """Return the moments of all chunks, holding one at a time. Raises CardiganError if there are none."""
    chunk_moments = (moments(chunk) for chunk in chunks)
    first = next(chunk_moments, None)
    if first is None:
        raise CardiganError("A distribution of 0 images: expected at least 1.")
    return reduce(merge_moments, chunk_moments, first)


def gaussian_from_moments(row_moments: Moments) -> Gaussian:
    """Return the Gaussian with these moments (n - 1 in the denominator). Raises CardiganError below two rows."""
    if row_moments.count < 2:
        raise CardiganError(f"A distribution of {row_moments.count} images: expected at least 2.")
    return Gaussian(row_moments.mean, row_moments.root / math.sqrt(row_moments.count - 1))


def jackknife_blocks(count: int) -> list[slice]:
    """Return the blocks of a jackknife over `count` samples. Raises CardiganError for too few samples."""
    if count < 2 * NUM_BLOCKS:
        raise CardiganError(
            f"{count} samples: a standard error needs at least {2 * NUM_BLOCKS}, so increase --samples."
        )
    edges = [count * block // NUM_BLOCKS for block in range(NUM_BLOCKS + 1)]
    return [slice(start, stop) for start, stop in zip(edges, edges[1:], strict=False)]


def frechet_with_error(rows: Float[Tensor, "n feature"], reference: Gaussian) -> tuple[float, float]:
    """Return the Frechet distance of the rows to a reference, and its standard error by block jackknife."""
    block_moments = [moments(rows[block]) for block in jackknife_blocks(len(rows))]
    prefix_moments, suffix_moments = (
        list(accumulate(block_moments, merge_moments)),
        list(accumulate(reversed(block_moments), merge_moments)),
    )
    leave_one_out = [
        suffix_moments[-2],
        *(merge_moments(prefix_moments[i - 1], suffix_moments[-i - 2]) for i in range(1, NUM_BLOCKS - 1)),
        prefix_moments[-2],
    ]
    value = frechet_distance(gaussian_from_moments(prefix_moments[-1]), reference)
    return value, jackknife_error(
        [frechet_distance(gaussian_from_moments(other), reference) for other in leave_one_out]
    )


def jackknife(rows: Float[Tensor, "n feature"], statistic: Callable[[Tensor], float]) -> tuple[float, float]:
    """Return a statistic of the rows, and its standard error by block jackknife."""
    leave_one_out = [
        statistic(torch.cat([rows[: block.start], rows[block.stop :]])) for block in jackknife_blocks(len(rows))
    ]
    return statistic(rows), jackknife_error(leave_one_out)


def jackknife_error(leave_one_out: Sequence[float]) -> float:
    """Return the standard error from the leave-one-out values (Efron 1982, eq. 3.6)."""
    values = torch.tensor(leave_one_out, dtype=torch.float64)
    return math.sqrt((len(values) - 1) * float(values.var(correction=0)))


def bootstrap_error(counts: Int64[Tensor, " class"], statistic: Callable[[Tensor], float], seed: int) -> float:
    """Return the standard error of a statistic of class counts by bootstrap over samples (Efron 1979)."""
    total = int(counts.sum())
    resamples = torch.multinomial(
        counts.double(), total * NUM_RESAMPLES, replacement=True, generator=stream(seed, "bootstrap", 0)
    ).reshape(NUM_RESAMPLES, total)
    values = torch.tensor(
        [statistic(torch.bincount(resample, minlength=len(counts))) for resample in resamples], dtype=torch.float64
    )
    return float(values.std())


def mean_with_error(values: Float[Tensor, " n"]) -> tuple[float, float]:
    """Return the mean of independent values and its standard error. Raises CardiganError for fewer than two."""
    if len(values) < 2:
        raise CardiganError(f"The mean of {len(values)} values: a standard error needs at least 2.")
    values = values.double()
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


def _qr_factor(rows: Float64[Tensor, "n feature"]) -> Float64[Tensor, "rank feature"]:
    return torch.linalg.qr(rows, mode="r").R
