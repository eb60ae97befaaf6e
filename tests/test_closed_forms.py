"""Single components: data, networks at any size, losses, penalties, distances."""

import time

import numpy as np
import pytest
import scipy.linalg
import torch

import cardigan
from cardigan.config_parts import DataConfig
from cardigan.data.mnist import load_mnist
from cardigan.data.resize import to_training_shape
from cardigan.metrics.digits import digit_features, digit_frechet_distance, predict_digits, to_mnist_shape
from cardigan.metrics.frechet import Gaussian, fit_gaussian, frechet_distance
from cardigan.nets.table import build_discriminator, build_generator
from cardigan.objective.losses import LOSSES
from cardigan.objective.penalties import zero_centered_penalty
from cardigan.pixels import decode, encode
from cardigan.training.ema import update_ema


@pytest.mark.alone
def test_mnist():
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        digits = load_mnist("all")
        seconds.append(time.monotonic() - began)
    assert min(seconds) < 1.0
    assert digits.pixels.shape == (70_000, 1, 28, 28)
    assert digits.pixels.dtype == torch.uint8
    assert len(load_mnist("train")) == 60_000
    assert torch.equal(load_mnist("test").pixels, digits.pixels[60_000:])


def test_pixels_round_trip():
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(encode(decode(values)), values)


def test_epoch_is_a_seeded_permutation_of_images():
    source = load_mnist("test")
    batches = cardigan.Batches(source, DataConfig(), seed=1)
    indices = torch.cat([batches.sampler.indices_at(start, 1000) for start in range(0, 10_000, 1000)])
    assert torch.equal(indices.sort().values, torch.arange(10_000))
    again = cardigan.Batches(source, DataConfig(), seed=1)
    assert torch.equal(
        again.sampler.indices_at(9_990, 64),
        torch.cat([batches.sampler.indices_at(9_990, 10), batches.sampler.indices_at(10_000, 54)]),
    )
    assert not torch.equal(cardigan.Batches(source, DataConfig(), seed=2).sampler.indices_at(0, 1000), indices[:1000])


@pytest.mark.parametrize(
    ("height", "width"), [(8, 8), (9, 13), (28, 28), (31, 64), (8, 65), (33, 20), (48, 48), (65, 65)]
)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("num_classes", [0, 10])
def test_dcgan_any_size(height, width, channels, num_classes):
    config = cardigan.override(cardigan.config_for("mnist"), {"generator.width": 2, "discriminator.width": 2})
    spec = cardigan.ImageSpec(channels, height, width, num_classes)
    labels = torch.tensor([1, 2, 3]) if num_classes else None
    images = build_generator(config, spec)(torch.randn(3, config.latent.size), labels)
    assert images.shape == (3, channels, height, width)
    assert images.abs().max() <= 1
    assert build_discriminator(config, spec)(images, labels).shape == (3,)


def test_penalty_of_linear_critic_is_squared_norm():
    weights = torch.randn(1, 2, 4, 4)
    images = torch.randn(5, 2, 4, 4, requires_grad=True)
    logits = (images * weights).sum(dim=(1, 2, 3))
    assert torch.allclose(zero_centered_penalty(logits, images), weights.square().sum())


@pytest.mark.parametrize("name", LOSSES)
def test_loss_gradient_signs(name):
    loss, low, high = LOSSES[name], torch.full((4,), -1.0), torch.full((4,), 2.0)
    assert loss.discriminator(high, low) < loss.discriminator(low, high)
    assert loss.generator(low, high) < loss.generator(low, low)
    assert loss.mean_probability(high, low) > 0.5 > loss.mean_probability(low, high)


def test_frechet_distance_of_known_gaussians():
    first = Gaussian(torch.zeros(2).double(), torch.diag(torch.tensor([1.0, 2.0]).double()))
    second = Gaussian(torch.tensor([3.0, 4.0]).double(), torch.diag(torch.tensor([2.0, 5.0]).double()))
    assert frechet_distance(first, second) == pytest.approx(25 + 1 + 9)
    rows = torch.randn(50, 80)  # fewer rows than features
    assert frechet_distance(fit_gaussian(rows), fit_gaussian(rows)) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_against_scipy():
    generator = torch.Generator().manual_seed(0)
    first, second = (
        torch.randn(300, 20, generator=generator).double(),
        torch.randn(200, 20, generator=generator).double() * 2 + 1,
    )
    root = scipy.linalg.sqrtm(np.cov(first, rowvar=False) @ np.cov(second, rowvar=False)).real
    shift = (first.mean(0) - second.mean(0)).square().sum().item()
    expected = (
        shift + np.trace(np.cov(first, rowvar=False)) + np.trace(np.cov(second, rowvar=False)) - 2 * np.trace(root)
    )
    assert frechet_distance(fit_gaussian(first), fit_gaussian(second)) == pytest.approx(expected, rel=1e-6)


def test_digit_classifier_accuracy():
    """99.65 % on the test digits, and real training digits at a distance of 1.5: the numbers in README and lab book."""
    test = load_mnist("test")
    features = digit_features(test.pixels)
    accuracy = (predict_digits(features) == test.labels).float().mean().item()
    assert accuracy == pytest.approx(0.9965, abs=2e-4)
    assert digit_frechet_distance(features) == pytest.approx(0.0, abs=1e-3)
    assert digit_frechet_distance(digit_features(load_mnist("train").pixels[:5_000])) == pytest.approx(1.5, abs=0.02)


@pytest.mark.parametrize("resize", ["pad", "stretch"])
def test_to_mnist_shape_inverts_to_training_shape(resize):
    pixels = load_mnist("test").pixels[:16]
    data = DataConfig(height=40, width=33, channels=3, resize=resize)
    back = to_mnist_shape(encode(to_training_shape(pixels, data)), data)
    error = (back.float() - pixels.float()).abs().mean().item()
    assert error == 0 if resize == "pad" else error < 8  # stretching blurs; 8 of 255 gray levels on average


def test_ema_with_zero_decay_is_a_copy():
    averaged, live = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    update_ema(averaged, live, 1.0)
    assert torch.equal(averaged.weight, live.weight)


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("weight", [0.1, 0.5])
def test_ema_of_several_steps_is_a_weighted_sum(weight, as_tensor):
    """After n steps: (1 - w)^n of the start, and w (1 - w)^(n - k) of the model at step k."""
    averaged, live = (torch.nn.Linear(3, 2, dtype=torch.float64) for _ in range(2))
    starts = [parameter.detach().clone() for parameter in averaged.parameters()]
    steps = [[torch.randn_like(start) for start in starts] for _ in range(4)]
    for values in steps:
        for parameter, value in zip(live.parameters(), values, strict=True):
            parameter.data.copy_(value)
        update_ema(averaged, live, torch.tensor(weight, dtype=torch.float64) if as_tensor else weight)
    for index, (parameter, start) in enumerate(zip(averaged.parameters(), starts, strict=True)):
        expected = (1 - weight) ** 4 * start
        for step, values in enumerate(steps):
            expected = expected + weight * (1 - weight) ** (3 - step) * values[index]
        torch.testing.assert_close(parameter.data, expected, rtol=1e-12, atol=1e-12)
    for parameter, value in zip(live.parameters(), steps[-1], strict=True):
        assert torch.equal(parameter.data, value)  # the model itself does not move


@pytest.mark.parametrize("weight", [0.1, 0.5])
def test_ema_copies_buffers(weight):
    """Batch statistics and their integer counter are copied, whatever the weight."""
    averaged, live = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    for _ in range(3):
        live(torch.randn(8, 3))
        update_ema(averaged, live, weight)
        assert all(map(torch.equal, averaged.buffers(), live.buffers()))
    assert averaged.num_batches_tracked.item() == 3 and averaged.num_batches_tracked.dtype == torch.int64
    live(torch.randn(8, 3))
    assert not torch.equal(averaged.running_mean, live.running_mean)  # a copy, not the same tensor
