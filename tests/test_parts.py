"""Parts by themselves: data, networks at any size, losses, penalties, distances."""

import time

import numpy as np
import pytest
import scipy.linalg
import torch

import cardigan
from cardigan.config import DataConfig
from cardigan.data.mnist import mnist
from cardigan.data.source import framed
from cardigan.metrics.digits import digit_classes, digit_distance, digit_features, to_digit_frame
from cardigan.metrics.frechet import Gaussian, fit_gaussian, frechet_distance
from cardigan.nets.table import build_discriminator, build_generator
from cardigan.objective.losses import LOSSES
from cardigan.objective.penalties import zero_centred_penalty
from cardigan.pixels import decode, encode
from cardigan.training.average import update_average


@pytest.mark.alone
def test_mnist_is_whole_quick_and_uint8():
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        digits = mnist("all")
        seconds.append(time.monotonic() - began)
    assert min(seconds) < 1.0
    assert digits.pixels.shape == (70_000, 1, 28, 28)
    assert digits.pixels.dtype == torch.uint8
    assert len(mnist("train")) == 60_000
    assert torch.equal(mnist("test").pixels, digits.pixels[60_000:])


def test_pixels_come_back():
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(encode(decode(every)), every)


def test_an_epoch_sees_every_picture_once_and_order_depends_on_seed_alone():
    source = mnist("test")
    batches = cardigan.Batches(source, DataConfig(), seed=1)
    seen = torch.cat([batches.order.at(start, 1000) for start in range(0, 10_000, 1000)])
    assert torch.equal(seen.sort().values, torch.arange(10_000))
    again = cardigan.Batches(source, DataConfig(), seed=1)
    assert torch.equal(again.order.at(9_990, 64), torch.cat([batches.order.at(9_990, 10), batches.order.at(10_000, 54)]))
    assert not torch.equal(cardigan.Batches(source, DataConfig(), seed=2).order.at(0, 1000), seen[:1000])


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 13), (28, 28), (31, 64), (8, 65), (33, 20), (48, 48), (65, 65)])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("classes", [0, 10])
def test_dcgan_at_any_size(height, width, channels, classes):
    config = cardigan.override(cardigan.config_for("mnist"), {"generator.width": 2, "discriminator.width": 2})
    spec = cardigan.ImageSpec(channels, height, width, classes)
    labels = torch.tensor([1, 2, 3]) if classes else None
    images = build_generator(config, spec)(torch.randn(3, config.latent.size), labels)
    assert images.shape == (3, channels, height, width)
    assert images.abs().max() <= 1
    assert build_discriminator(config, spec)(images, labels).shape == (3,)


def test_penalty_of_a_linear_critic_is_its_squared_norm():
    weights = torch.randn(1, 2, 4, 4)
    images = torch.randn(5, 2, 4, 4, requires_grad=True)
    logits = (images * weights).sum(dim=(1, 2, 3))
    assert torch.allclose(zero_centred_penalty(logits, images), weights.square().sum())


@pytest.mark.parametrize("name", LOSSES)
def test_losses_push_the_right_way(name):
    loss, low, high = LOSSES[name], torch.full((4,), -1.0), torch.full((4,), 2.0)
    assert loss.discriminator(high, low) < loss.discriminator(low, high)
    assert loss.generator(low, high) < loss.generator(low, low)
    assert loss.belief(high, low) > 0.5 > loss.belief(low, high)


def test_frechet_distance_of_known_gaussians():
    first = Gaussian(torch.zeros(2).double(), torch.diag(torch.tensor([1.0, 2.0]).double()))
    second = Gaussian(torch.tensor([3.0, 4.0]).double(), torch.diag(torch.tensor([2.0, 5.0]).double()))
    assert frechet_distance(first, second) == pytest.approx(25 + 1 + 9)
    rows = torch.randn(50, 80)  # fewer rows than features
    assert frechet_distance(fit_gaussian(rows), fit_gaussian(rows)) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_against_scipy():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(300, 20, generator=generator).double(), torch.randn(200, 20, generator=generator).double() * 2 + 1
    root = scipy.linalg.sqrtm(np.cov(first, rowvar=False) @ np.cov(second, rowvar=False)).real
    shift = (first.mean(0) - second.mean(0)).square().sum().item()
    expected = shift + np.trace(np.cov(first, rowvar=False)) + np.trace(np.cov(second, rowvar=False)) - 2 * np.trace(root)
    assert frechet_distance(fit_gaussian(first), fit_gaussian(second)) == pytest.approx(expected, rel=1e-6)


def test_digit_judge_is_as_good_as_it_says():
    """99.65 % on the test digits, and real training digits at a distance of 1.5: the figures of README and lab book."""
    test = mnist("test")
    features = digit_features(test.pixels)
    accuracy = (digit_classes(features) == test.labels).float().mean().item()
    assert accuracy == pytest.approx(0.9965, abs=2e-4)
    assert digit_distance(features) == pytest.approx(0.0, abs=1e-3)
    assert digit_distance(digit_features(mnist("train").pixels[:5_000])) == pytest.approx(1.5, abs=0.02)


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_digit_frame_is_the_inverse_of_the_training_frame(fit):
    pixels = mnist("test").pixels[:16]
    data = DataConfig(height=40, width=33, channels=3, fit=fit)
    back = to_digit_frame(encode(framed(pixels, data)), data)
    off = (back.float() - pixels.float()).abs().mean().item()
    assert off == 0 if fit == "pad" else off < 8  # stretching blurs; 8 of 255 grey levels on average


def test_average_of_weight_one_is_a_copy():
    kept, live = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    update_average(kept, live, 1.0)
    assert torch.equal(kept.weight, live.weight)
