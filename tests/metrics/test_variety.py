"""Distances between samples: all of them, and within the clusters of training images."""

import itertools

import pytest
import torch

from cardigan.errors import CardiganError
from cardigan.metrics.variety import intra_cluster_distance, pairwise_distance


def mean_distance(features: torch.Tensor) -> float:
    distances = [float((a - b).norm()) for a, b in itertools.combinations(features, 2)]
    return sum(distances) / len(distances)


def test_mean_and_error_of_all_pairs():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 8, generator=generator)
    mean, error = pairwise_distance(features)
    assert mean == pytest.approx(mean_distance(features), rel=1e-6)
    means = [pairwise_distance(torch.randn(40, 8, generator=generator))[0] for _ in range(400)]
    assert error == pytest.approx(float(torch.tensor(means).std()), rel=0.25)
    with pytest.raises(CardiganError, match="1 image"):
        pairwise_distance(features[:1])


def test_clusters_are_the_samples_nearest_to_a_training_image():
    generator = torch.Generator().manual_seed(1)
    centers = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])
    tight, wide = (
        centers[0] + torch.randn(5, 2, generator=generator),
        centers[1] + 9 * torch.randn(7, 2, generator=generator),
    )
    lone = centers[2:]  # one sample has no distance
    mean, error = intra_cluster_distance(torch.cat([tight, wide, lone]), centers)
    expected = torch.tensor([mean_distance(tight), mean_distance(wide)])
    assert mean == pytest.approx(float(expected.mean()), rel=1e-6)
    assert error == pytest.approx(float(expected.std() / 2**0.5), rel=1e-6)
    copies = centers.repeat(4, 1)
    assert intra_cluster_distance(copies, centers)[0] == pytest.approx(0, abs=1e-6)
    with pytest.raises(CardiganError, match="3 samples and 3 training images"):
        intra_cluster_distance(centers, centers)
