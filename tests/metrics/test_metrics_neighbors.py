"""Exact pixel-space neighbors: against scipy, in chunks, and with copies among the samples."""

import pytest
import scipy.spatial
import torch

from cardigan.data.mnist import load_mnist
from cardigan.errors import CardiganError
from cardigan.figures.grid import neighbor_grid
from cardigan.metrics import neighbors
from cardigan.metrics.neighbors import nearest_neighbors, nearest_samples, nn_errors, nn_labels, training_neighbors


def noise(count: int, seed: int, shape: tuple[int, int, int] = (1, 28, 28)) -> torch.Tensor:
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 20), (1, 32, 32), (1, 33, 32)])
def test_nearest_neighbors_do_not_depend_on_tile_size(shape, monkeypatch):
    """Images that differ by one gray level: float32 must be exact."""
    first = noise(1, 0, shape)
    candidates = first.clamp(1, 254).repeat(40, 1, 1, 1)
    for index in range(40):
        candidates[index].view(-1)[: index + 1] += 1
    queries = candidates[[30, 3, 17]].clone()
    queries.view(3, -1)[:, 500] -= 1
    expected = scipy.spatial.distance.cdist(queries.flatten(1).double(), candidates.flatten(1).double())
    for tile in (7, 2_000):
        monkeypatch.setattr(neighbors, "TILE_SIZE", tile)
        result = nearest_neighbors(queries, candidates)
        assert result.index.tolist() == expected.argmin(1).tolist() == [30, 3, 17]
        assert result.distance.tolist() == pytest.approx([1.0, 1.0, 1.0], abs=1e-9)


def test_nearest_neighbors_against_scipy():
    queries, candidates = noise(50, 1), noise(70, 2)
    expected = scipy.spatial.distance.cdist(queries.flatten(1).double(), candidates.flatten(1).double())
    result = nearest_neighbors(queries, candidates)
    assert result.index.tolist() == expected.argmin(1).tolist()
    assert torch.allclose(result.distance, torch.from_numpy(expected.min(1)), rtol=1e-6)


def test_chunked_samples_equal_one_set():
    test, train = load_mnist("test"), load_mnist("train")
    starts = []

    def chunks(size):
        for start in range(0, 1_000, size):
            starts.append(start)
            yield train.pixels[start : min(start + size, 1_000)], train.labels[start : min(start + size, 1_000)]

    whole = nn_labels(test.pixels[:200], chunks(1_000))
    assert torch.equal(whole, nn_labels(test.pixels[:200], chunks(90)))
    with pytest.raises(CardiganError, match="0 labeled samples"):
        nn_labels(test.pixels[:2], [])
    assert len(starts) == 13


def test_nn_error_of_real_digits_against_scipy():
    test, train = load_mnist("test"), load_mnist("train")
    distances = scipy.spatial.distance.cdist(
        test.pixels[:200].flatten(1).double(), train.pixels[:3_000].flatten(1).double(), "sqeuclidean"
    )
    expected = (train.labels[distances.argmin(1)] != test.labels[:200]).double()
    errors = nn_errors(test.pixels[:200], test.labels[:200], [(train.pixels[:3_000], train.labels[:3_000])])
    assert torch.equal(errors, expected)
    assert 0.02 < float(errors.mean()) < 0.2


def test_training_copies_are_found():
    train = load_mnist("train").pixels[:1_000]
    samples = load_mnist("test").pixels[:100].clone()
    samples[5] = train[77]
    samples[9] = train[300].clamp(max=250)
    result = training_neighbors(samples, train)
    assert set(result.worst(2)) == {(5, 77), (9, 300)}
    assert result.worst(1) == [(5, 77)]
    assert result.authentic[5] == result.authentic[9] == 0
    others = [index for index in range(100) if index not in (5, 9)]
    assert 0.4 < float(result.authentic[others].mean()) < 0.95
    spacing = nearest_neighbors(train[77:78], torch.cat([train[:77], train[78:]])).distance
    assert float(result.spacing[5]) == pytest.approx(float(spacing))


def test_duplicate_samples_are_found():
    samples = noise(20, 3)
    samples[4] = samples[15]
    result = nearest_samples(samples)
    assert result.distance[4] == result.distance[15] == 0
    assert (int(result.index[4]), int(result.index[15])) == (15, 4)
    assert int((result.distance > 0).sum()) == 18


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda: nearest_neighbors(noise(2, 0), noise(2, 0, (1, 27, 28))), "28x28x1 and real images of 27x28x1"),
        (lambda: nearest_neighbors(noise(2, 0), noise(2, 0, (3, 28, 28))), "equal sizes and channels"),
        (lambda: nearest_neighbors(noise(2, 0), noise(2, 0)[:0]), "expected at least 1"),
        (lambda: nearest_samples(noise(1, 0)), "at least 1 and 2"),
    ],
)
def test_incompatible_inputs_raise(compute, message):
    with pytest.raises(CardiganError, match=message):
        compute()


def test_neighbor_grid_layout():
    samples, others = torch.full((9, 1, 4, 4), 10, dtype=torch.uint8), torch.full((9, 1, 4, 4), 200, dtype=torch.uint8)
    sheet = neighbor_grid(samples, others)
    assert sheet.shape == (1, 10, 8 * 10 + 7 * 8)
    assert (sheet[:, :4, :4] == 10).all() and (sheet[:, :4, 6:10] == 200).all()
    assert (sheet[:, 6:, :4] == 10).all() and (sheet[:, 6:, 10:] == 128).all()
