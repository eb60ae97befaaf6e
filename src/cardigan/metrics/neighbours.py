"""Nearest neighbours by the pixels: the DCGAN paper's classification test, memorised and repeated samples.

Exact search over stored pictures, chunk by chunk, so that the samples need not fit in memory. Does not know networks.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from cardigan.errors import CardiganError
from cardigan.shapes import Labels, Pixels

Pictures = UInt8[Tensor, "_ _ _ _"]
"""Stored pictures whose count and shape need not be those of the others."""
Chunk = tuple[Pictures, Int64[Tensor, " _"]]
"""Labelled samples, a part of many."""

TILE = 2_000
"""Pictures on each side of one matrix of distances: 16 MB."""
EXACT_VALUES = 1_024
"""With 128 taken off, a product of two pictures of up to 1,024 values stays below 2^24, so float32 holds it, and every partial sum, exactly."""


@dataclass(frozen=True)
class Nearest:
    """For each query its nearest candidate: Euclidean distance in grey levels, and position or label of the candidate."""

    distance: Float[Tensor, " query"]
    index: Int64[Tensor, " query"]


@dataclass(frozen=True)
class Memories:
    """What each sample has to do with the training pictures."""

    nearest: Nearest
    """The nearest training picture of each sample."""
    spacing: Float[Tensor, " query"]
    """How far that training picture is from its own nearest training picture."""

    @property
    def authentic(self) -> Float[Tensor, " query"]:
        """1 where a sample is farther from its training picture than another training picture is (arXiv:2102.08921, section 3.3)."""
        return (self.nearest.distance > self.spacing).double()

    def worst(self, count: int) -> list[tuple[int, int]]:
        """Return (sample, training picture) of the samples that are nearest to theirs, measured by its spacing; the nearest first."""
        ratio = self.nearest.distance / self.spacing.clamp(min=1e-9)
        return [(int(place), int(self.nearest.index[place])) for place in ratio.argsort(stable=True)[:count]]


def nearest(queries: Pictures, candidates: Pictures, themselves: Int64[Tensor, " query"] | None = None) -> Nearest:
    """Return each query's nearest candidate; of equally near ones the first tile's.

    `themselves` is the position of each query among the candidates, which then is not counted. Raises CardiganError for unequal shapes or
    nothing to be near to.
    """
    _check(queries, candidates, needed=1 if themselves is None else 2)
    rows = _centred(queries)
    best, place = torch.full((len(rows),), torch.inf, dtype=rows.dtype), torch.zeros(len(rows), dtype=torch.int64)
    for left in range(0, len(candidates), TILE):
        columns = _centred(candidates[left : left + TILE])  # tile by tile: as floats all candidates can be gigabytes
        halves = columns.square().sum(1) / 2
        for top in range(0, len(rows), TILE):
            here = slice(top, top + TILE)
            # (|x - y|^2 - |x|^2) / 2: near pairs are whole halves below 2^23 in size, so float32 neither rounds nor swaps them.
            scores = torch.addmm(halves[None], rows[here], columns.T, alpha=-1)
            if themselves is not None:
                own = themselves[here] - left
                inside = ((own >= 0) & (own < scores.shape[1])).nonzero()[:, 0]
                scores[inside, own[inside]] = torch.inf
            low, where = scores.min(1)
            better = low < best[here]
            best[here], place[here] = torch.where(better, low, best[here]), torch.where(better, where + left, place[here])
    norms = rows.square().sum(1)
    return Nearest((norms.double() + 2 * best.double()).clamp(min=0).sqrt(), place)


def neighbour_labels(test: Pixels, chunks: Iterable[Chunk]) -> Labels:
    """Return the label of each test picture's nearest sample over all chunks, holding one chunk at a time."""
    best = torch.full((len(test),), torch.inf, dtype=torch.float64)
    labels = torch.full((len(test),), -1, dtype=torch.int64)
    for pixels, given in chunks:
        found = nearest(test, pixels)
        better = found.distance < best
        best, labels = torch.where(better, found.distance, best), torch.where(better, given[found.index], labels)
    if not bool((labels >= 0).all()):
        raise CardiganError("No labelled sample to be near to: expected at least 1.")
    return labels


def neighbour_errors(test: Pixels, test_labels: Labels, chunks: Iterable[Chunk]) -> Float[Tensor, " batch"]:
    """Return 1 for each test picture that its nearest sample names wrongly: the mean is the test error of a 1-nearest-neighbour classifier
    fitted on the samples (arXiv:1511.06434, appendix A)."""
    return (neighbour_labels(test, chunks) != test_labels).double()


def memories(samples: Pictures, training: Pictures) -> Memories:
    """Return each sample's nearest training picture, and how far that one is from its own nearest."""
    found = nearest(samples, training)
    used, place = found.index.unique(return_inverse=True)
    spacing = nearest(training[used], training, themselves=used).distance
    return Memories(found, spacing[place])


def repeats(samples: Pixels) -> Nearest:
    """Return each sample's nearest other sample."""
    return nearest(samples, samples, themselves=torch.arange(len(samples)))


def _check(queries: Pictures, candidates: Pictures, needed: int) -> None:
    if queries.shape[1:] != candidates.shape[1:]:
        raise CardiganError(
            f"Pictures of {_shape(queries)} beside real ones of {_shape(candidates)}: neighbours need equal sizes and channels, so resize them first."
        )
    if len(candidates) < needed or len(queries) == 0:
        raise CardiganError(f"{len(queries)} pictures and {len(candidates)} to be near to: expected at least 1 and {needed}.")


def _shape(pixels: Pictures) -> str:
    return "x".join(str(side) for side in (*pixels.shape[2:], pixels.shape[1]))


def _centred(pixels: Pixels) -> Float[Tensor, "batch value"]:
    flat = pixels.flatten(1)
    kind = torch.float32 if flat.shape[1] <= EXACT_VALUES else torch.float64
    return flat.to(kind) - 128
