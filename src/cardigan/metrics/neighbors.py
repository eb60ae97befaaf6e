"""Nearest neighbors in pixel space: the DCGAN paper's 1-NN test, memorized samples and duplicates.

The search is exact and works in chunks, so the samples need not fit in memory.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from cardigan.errors import CardiganError
from cardigan.metrics.features import shape_text
from cardigan.shapes import Labels, Pixels

PixelBatch = UInt8[Tensor, "_ _ _ _"]
"""Stored images whose count and shape may differ from the other arguments'."""
LabeledChunk = tuple[PixelBatch, Int64[Tensor, " _"]]
"""One chunk of labeled samples."""

TILE_SIZE = 2_000
"""Images on each side of one distance matrix (16 MB)."""
MAX_EXACT_VALUES = 1_024
"""Maximum values per image for float32.

After subtracting 128, the dot product of two such images and every partial sum stay below 2^24, so float32 is exact.
"""


@dataclass(frozen=True)
class NearestNeighbors:
    """The nearest candidate of each query: Euclidean distance in gray levels, and index."""

    distance: Float[Tensor, " query"]
    index: Int64[Tensor, " query"]


@dataclass(frozen=True)
class TrainingNeighbors:
    """The relation of each sample to the training images."""

    nearest: NearestNeighbors
    """The nearest training image of each sample."""
    spacing: Float[Tensor, " query"]
    """The distance from that training image to its own nearest training image."""

    @property
    def authentic(self) -> Float[Tensor, " query"]:
        """1 where a sample is farther from its nearest training image than another training image is.

        See arXiv:2102.08921, section 3.3.
        """
        return (self.nearest.distance > self.spacing).double()

    def worst(self, count: int) -> list[tuple[int, int]]:
        """Return (sample, training image) index pairs with the smallest distance relative to `spacing`, in order."""
        ratio = self.nearest.distance / self.spacing.clamp(min=1e-9)
        return [(int(sample), int(self.nearest.index[sample])) for sample in ratio.argsort(stable=True)[:count]]


def nearest_neighbors(
    queries: PixelBatch, candidates: PixelBatch, self_index: Int64[Tensor, " query"] | None = None
) -> NearestNeighbors:
    """Return each query's nearest candidate. Ties go to the first tile.

    `self_index` is the index of each query among the candidates, which is then excluded. Raises CardiganError for
    unequal shapes or too few candidates.
    """
    _check_shapes(queries, candidates, min_candidates=1 if self_index is None else 2)
    rows = _centered(queries)
    best_score, best_index = (
        torch.full((len(rows),), torch.inf, dtype=rows.dtype),
        torch.zeros(len(rows), dtype=torch.int64),
    )
    for left in range(0, len(candidates), TILE_SIZE):
        # Converted per tile, because all candidates as floats can take gigabytes.
        columns = _centered(candidates[left : left + TILE_SIZE])
        halves = columns.square().sum(1) / 2
        for top in range(0, len(rows), TILE_SIZE):
            tile = slice(top, top + TILE_SIZE)
            # (|x - y|^2 - |x|^2) / 2. For near pairs these are multiples of 1/2 below 2^23, exact in float32.
            scores = torch.addmm(halves[None], rows[tile], columns.T, alpha=-1)
            if self_index is not None:
                self_column = self_index[tile] - left
                inside = ((self_column >= 0) & (self_column < scores.shape[1])).nonzero()[:, 0]
                scores[inside, self_column[inside]] = torch.inf
            tile_score, tile_index = scores.min(1)
            is_nearer = tile_score < best_score[tile]
            best_score[tile], best_index[tile] = (
                torch.where(is_nearer, tile_score, best_score[tile]),
                torch.where(is_nearer, tile_index + left, best_index[tile]),
            )
    norms = rows.square().sum(1)
    return NearestNeighbors((norms.double() + 2 * best_score.double()).clamp(min=0).sqrt(), best_index)


def nn_labels(test: Pixels, chunks: Iterable[LabeledChunk]) -> Labels:
    """Return the label of each test image's nearest sample over all chunks, holding one chunk at a time."""
    best = torch.full((len(test),), torch.inf, dtype=torch.float64)
    labels = torch.full((len(test),), -1, dtype=torch.int64)
    for pixels, chunk_labels in chunks:
        neighbors = nearest_neighbors(test, pixels)
        is_nearer = neighbors.distance < best
        best, labels = (
            torch.where(is_nearer, neighbors.distance, best),
            torch.where(is_nearer, chunk_labels[neighbors.index], labels),
        )
    if not bool((labels >= 0).all()):
        raise CardiganError("0 labeled samples: expected at least 1.")
    return labels


def nn_errors(test: Pixels, test_labels: Labels, chunks: Iterable[LabeledChunk]) -> Float[Tensor, " batch"]:
    """Return 1 for each test image whose nearest sample has another label.

    The mean is the test error of a 1-nearest-neighbor classifier fitted on the samples (arXiv:1511.06434, appendix A).
    """
    return (nn_labels(test, chunks) != test_labels).double()


def training_neighbors(samples: PixelBatch, training: PixelBatch) -> TrainingNeighbors:
    """Return each sample's nearest training image, and the distance from that image to its own nearest one."""
    neighbors = nearest_neighbors(samples, training)
    unique_indices, inverse = neighbors.index.unique(return_inverse=True)
    spacing = nearest_neighbors(training[unique_indices], training, self_index=unique_indices).distance
    return TrainingNeighbors(neighbors, spacing[inverse])


def nearest_samples(samples: Pixels) -> NearestNeighbors:
    """Return each sample's nearest other sample."""
    return nearest_neighbors(samples, samples, self_index=torch.arange(len(samples)))


def _check_shapes(queries: PixelBatch, candidates: PixelBatch, min_candidates: int) -> None:
    if queries.shape[1:] != candidates.shape[1:]:
        raise CardiganError(
            f"Samples of {shape_text(queries.shape[1:])} and real images of {shape_text(candidates.shape[1:])}: "
            "expected equal sizes and channels, so resize them first."
        )
    if len(candidates) < min_candidates or len(queries) == 0:
        raise CardiganError(
            f"{len(queries)} queries and {len(candidates)} candidates: expected at least 1 and {min_candidates}."
        )


def _centered(pixels: Pixels) -> Float[Tensor, "batch value"]:
    flat = pixels.flatten(1)
    dtype = torch.float32 if flat.shape[1] <= MAX_EXACT_VALUES else torch.float64
    return flat.to(dtype) - 128
