"""Distances and overlap metrics against closed forms, scipy and torchmetrics."""

import numpy as np
import pytest
import scipy.linalg
import scipy.spatial
import scipy.stats
import torch
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from cardigan.data.mnist import load_mnist
from cardigan.errors import CardiganError
from cardigan.metrics.class_histogram import (
    class_counts,
    class_kl,
    classifier_score,
    num_covered,
    stacked_modes,
    uniform_counts,
)
from cardigan.metrics.frechet import fit_gaussian, frechet_distance, frechet_with_influence_error
from cardigan.metrics.kernel import kernel_distance, kernel_distance_with_error
from cardigan.metrics.parzen import SIGMAS, log_likelihoods, parzen_log_likelihood
from cardigan.metrics.prdc import prdc
from cardigan.metrics.statistics import (
    bootstrap_error,
    frechet_with_error,
    gaussian_from_moments,
    jackknife,
    mean_with_error,
    merge_moments,
    moments,
    streaming_moments,
)


class FlattenFeatures(torch.nn.Module):
    """A feature network for torchmetrics that only flattens the images."""

    num_features = 12

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1).double()


def rows(count: int, features: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    return (
        torch.randn(count, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale + shift
    )


def random_images(count: int, seed: int, high: int = 256) -> torch.Tensor:
    return torch.randint(0, high, (count, 3, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sizes", [(7, 1, 30), (2, 2), (100,), (1, 1, 1)])
def test_streaming_moments_equal_full_moments(sizes):
    whole = rows(sum(sizes), 9, 0, shift=1e3)
    gaussian = gaussian_from_moments(streaming_moments(iter(whole.split(list(sizes)))))
    assert torch.allclose(gaussian.mean, whole.mean(0), rtol=1e-12)
    assert torch.allclose(gaussian.root.T @ gaussian.root, torch.from_numpy(np.cov(whole, rowvar=False)), atol=1e-9)
    parts = [moments(chunk) for chunk in whole.split(list(sizes))]
    if len(parts) > 1:
        swapped = merge_moments(parts[1], parts[0])
        assert torch.allclose(
            swapped.root.T @ swapped.root,
            merge_moments(parts[0], parts[1]).root.T @ merge_moments(parts[0], parts[1]).root,
            atol=1e-9,
        )


def test_streaming_moments_with_fewer_rows_than_features():
    whole = rows(40, 64, 0)
    assert frechet_distance(
        gaussian_from_moments(streaming_moments(whole.split(7))), fit_gaussian(whole)
    ) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_against_torchmetrics():
    real, fake = random_images(400, 0), random_images(300, 1, high=180)
    metric = FrechetInceptionDistance(feature=FlattenFeatures()).set_dtype(torch.float64)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    value, _ = frechet_with_error(fake.flatten(1).float(), fit_gaussian(real.flatten(1).float()))
    assert value == pytest.approx(float(metric.compute()), rel=1e-6)


def test_frechet_distance_of_streamed_halves_against_scipy():
    first, second = rows(300, 20, 0), rows(200, 20, 1, scale=2, shift=1)
    root = scipy.linalg.sqrtm(np.cov(first, rowvar=False) @ np.cov(second, rowvar=False)).real
    traces = np.trace(np.cov(first, rowvar=False)) + np.trace(np.cov(second, rowvar=False)) - 2 * np.trace(root)
    expected = (first.mean(0) - second.mean(0)).square().sum().item() + traces
    assert frechet_distance(
        gaussian_from_moments(streaming_moments(first.split(33))),
        gaussian_from_moments(streaming_moments(second.split(150))),
    ) == pytest.approx(expected, rel=1e-6)


@pytest.mark.filterwarnings("ignore:Metric .* will save all extracted features:UserWarning")
def test_kernel_distance_against_torchmetrics():
    real, fake = random_images(120, 0), random_images(120, 1, high=200)
    metric = KernelInceptionDistance(feature=FlattenFeatures(), subsets=1, subset_size=120).set_dtype(torch.float64)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    assert kernel_distance(fake.flatten(1).double(), real.flatten(1).double()) == pytest.approx(
        float(metric.compute()[0]), rel=1e-6
    )


def test_kernel_distance_closed_form_and_unbiased():
    first, second = torch.tensor([[1.0], [1.0]]), torch.tensor([[0.0], [0.0]])
    assert kernel_distance(first, second) == pytest.approx(8 + 1 - 2 * 1)
    values = [kernel_distance(rows(50, 3, seed), rows(50, 3, 1000 + seed)) for seed in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / 200**0.5
    value, error = kernel_distance_with_error(rows(2000, 3, 0), rows(2000, 3, 1, shift=1.0))
    assert value > 5 * error > 0


@pytest.mark.filterwarnings(
    "ignore:Metric .* will save all extracted features:UserWarning", "ignore:std\\(\\):UserWarning"
)
def test_classifier_score_against_torchmetrics_inception_score():
    class Logits(torch.nn.Module):
        num_features = 12

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1).double() / 40

    metric = InceptionScore(feature=Logits(), splits=1)
    metric.update(random_images(200, 0))
    assert classifier_score(random_images(200, 0).flatten(1).double() / 40) == pytest.approx(
        float(metric.compute()[0]), rel=1e-6
    )
    assert classifier_score(torch.eye(5).repeat(3, 1) * 1e3) == pytest.approx(5)
    assert classifier_score(torch.ones(8, 5)) == pytest.approx(1)


def test_prdc_closed_form():
    """On a line, k = 1: real balls of radius 1, 1, 8 around 0, 1, 9; generated balls of radius 1.5 around 0.5 and 2."""
    result = prdc(torch.tensor([[0.0], [1.0], [9.0]]), torch.tensor([[0.5], [2.0], [-3.0]]), num_neighbors=1)
    assert result.precision.tolist() == [1, 1, 0]
    assert result.density.tolist() == [2, 2, 0]
    assert result.coverage.tolist() == [1, 1, 1]
    assert result.recall.tolist() == [1, 1, 0]


def test_prdc_against_slow_reference():
    real, fake = rows(130, 4, 0), rows(90, 4, 1, scale=0.7, shift=0.4)
    distances = scipy.spatial.distance.cdist(fake, real)
    real_radii = np.sort(scipy.spatial.distance.cdist(real, real), axis=1)[:, 5]
    fake_radii = np.sort(scipy.spatial.distance.cdist(fake, fake), axis=1)[:, 5]
    result = prdc(real, fake)
    assert float(result.precision.mean()) == pytest.approx((distances <= real_radii).any(1).mean())
    assert float(result.density.mean()) == pytest.approx((distances <= real_radii).sum() / 5 / 90)
    assert float(result.coverage.mean()) == pytest.approx((distances <= real_radii).any(0).mean())
    assert float(result.recall.mean()) == pytest.approx((distances <= fake_radii[:, None]).any(0).mean())
    assert 0 < float(result.recall.mean()) < 1


def test_class_kl_against_scipy_and_its_errors():
    counts, data = torch.tensor([5, 0, 15]), torch.tensor([10, 10, 20])
    assert class_kl(counts, data) == pytest.approx(scipy.stats.entropy([0.25, 0, 0.75], [0.25, 0.25, 0.5]), rel=1e-12)
    assert num_covered(counts) == 2
    with pytest.raises(CardiganError, match="infinite"):
        class_kl(counts, torch.tensor([1, 1, 0]))
    with pytest.raises(CardiganError, match=r"expected 0\.\.2"):
        class_counts(torch.tensor([3]), 3)


def test_kl_of_uniform_samples_matches_expected_bias():
    samples = torch.randint(1000, (26_000,), generator=torch.Generator().manual_seed(0))
    assert class_kl(class_counts(samples, 1000), uniform_counts(1000)) == pytest.approx(999 / (2 * 26_000), rel=0.1)


def test_stacked_modes_channel_order():
    digits = load_mnist("test")
    indices = torch.tensor([[0, 1, 2], [3, 4, 5], [6, 7, 0]])
    modes = stacked_modes(digits.pixels[indices, 0])
    assert modes.tolist() == (digits.labels[indices] * torch.tensor([100, 10, 1])).sum(1).tolist()


def test_parzen_density_integrates_to_one_and_agrees_with_scipy():
    samples = torch.tensor([[0.2], [0.7]])
    line = torch.linspace(-3, 4, 20_001)[:, None]
    density = log_likelihoods((line - samples.T).square(), 0.3, 1).exp()
    assert float(torch.trapezoid(density, line[:, 0].double())) == pytest.approx(1, abs=1e-5)
    expected = np.log(0.5 * sum(scipy.stats.norm.pdf(0.4, center, 0.3) for center in (0.2, 0.7)))
    assert float(log_likelihoods(torch.tensor([[0.04, 0.09]]), 0.3, 1)) == pytest.approx(expected, rel=1e-6)


def test_parzen_width_is_selected_by_validation():
    near, far = random_images(60, 0, high=40), random_images(40, 1, high=40)
    value, error, sigma = parzen_log_likelihood(near, far[:20], far[20:])
    assert sigma in SIGMAS and sigma < 0.3
    assert error > 0
    assert parzen_log_likelihood(255 - near, far[:20], far[20:])[0] < value
    with pytest.raises(CardiganError, match="expected equal shapes"):
        parzen_log_likelihood(near[:, :1], far, far)


def test_influence_standard_error_matches_repeated_samples():
    reference = fit_gaussian(rows(4000, 4, 99))
    results = [frechet_with_influence_error(rows(400, 4, seed, scale=1.2, shift=0.3), reference) for seed in range(60)]
    spread = torch.tensor([value for value, _ in results]).std()
    assert torch.tensor([error for _, error in results]).mean() == pytest.approx(float(spread), rel=0.25)
    few = rows(20, 50, 1)
    value, error = frechet_with_influence_error(few, fit_gaussian(rows(30, 50, 2)))
    assert value == pytest.approx(frechet_distance(fit_gaussian(few), fit_gaussian(rows(30, 50, 2))))
    assert 0 < error < value


def test_standard_errors_match_repeated_samples():
    """The standard error from one sample equals the spread over many (jackknife and bootstrap)."""
    reference = fit_gaussian(rows(5000, 4, 10_000))
    results = [frechet_with_error(rows(400, 4, seed, scale=1.2, shift=0.3), reference) for seed in range(60)]
    assert np.mean([error for _, error in results]) == pytest.approx(np.std([value for value, _ in results]), rel=0.3)
    scores = [jackknife(rows(400, 3, seed, scale=2), classifier_score) for seed in range(60)]
    assert np.mean([error for _, error in scores]) == pytest.approx(np.std([value for value, _ in scores]), rel=0.3)
    data = torch.tensor([1, 2, 3])
    draws = [
        torch.bincount(torch.multinomial(data / 6, 300, True, generator=torch.Generator().manual_seed(s)), minlength=3)
        for s in range(200)
    ]
    spread = np.std([float(draw[0]) for draw in draws])
    assert bootstrap_error(draws[0], lambda counts: float(counts[0]), 0) == pytest.approx(spread, rel=0.3)
    assert mean_with_error(torch.tensor([1.0, 3.0])) == (2.0, 1.0)


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda: streaming_moments([]), "at least 1"),
        (lambda: gaussian_from_moments(moments(rows(1, 3, 0))), "at least 2"),
        (lambda: frechet_with_error(rows(30, 3, 0), fit_gaussian(rows(30, 3, 1))), "at least 40"),
        (lambda: kernel_distance_with_error(rows(99, 3, 0), rows(500, 3, 0)), "at least 100"),
        (lambda: kernel_distance(rows(1, 3, 0), rows(5, 3, 0)), "at least 2"),
        (lambda: prdc(rows(5, 3, 0), rows(50, 3, 0)), "at least 6"),
        (lambda: mean_with_error(torch.ones(1)), "at least 2"),
    ],
)
def test_too_few_samples_raise(compute, message):
    with pytest.raises(CardiganError, match=message) as caught:
        compute()
    assert "\n" not in str(caught.value)
