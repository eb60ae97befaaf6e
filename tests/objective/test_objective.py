"""Losses and penalties against the formulas in their papers, computed by hand or with NumPy."""

import math

import numpy as np
import pytest
import torch

from cardigan.cli import known_names
from cardigan.objective.losses import LOSSES, find_loss
from cardigan.objective.penalties import PENALTIES, dragan_penalty, gradient_penalty, zero_centered_penalty

REAL, FAKE = np.array([2.0, -0.5, 0.3]), np.array([-1.0, 0.7, 0.1])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


EXPECTED = {
    "non-saturating": (-np.log(sigmoid(REAL)).mean() - np.log(1 - sigmoid(FAKE)).mean(), -np.log(sigmoid(FAKE)).mean()),
    "minimax": (-np.log(sigmoid(REAL)).mean() - np.log(1 - sigmoid(FAKE)).mean(), np.log(1 - sigmoid(FAKE)).mean()),
    "relativistic": (-np.log(sigmoid(REAL - FAKE)).mean(), -np.log(sigmoid(FAKE - REAL)).mean()),
    "least-squares": (((REAL - 1) ** 2).mean() / 2 + (FAKE**2).mean() / 2, ((FAKE - 1) ** 2).mean() / 2),
    "hinge": (np.maximum(0, 1 - REAL).mean() + np.maximum(0, 1 + FAKE).mean(), -FAKE.mean()),
    "wasserstein": (FAKE.mean() - REAL.mean(), -FAKE.mean()),
}


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_match_papers(name):
    loss, (discriminator, generator) = find_loss(name), EXPECTED[name]
    real, fake = torch.tensor(REAL).float(), torch.tensor(FAKE).float()
    assert float(loss.discriminator(real, fake)) == pytest.approx(discriminator, rel=1e-5)
    assert float(loss.generator(real, fake)) == pytest.approx(generator, rel=1e-5)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_are_adversarial(name):
    """D lowers its loss by raising real and lowering fake logits, G by raising fake ones. Margins agree with that."""
    loss = find_loss(name)
    real, fake = torch.zeros(8, requires_grad=True), torch.zeros(8, requires_grad=True)
    grad_real, grad_fake = torch.autograd.grad(loss.discriminator(real, fake), [real, fake])
    (grad_generator,) = torch.autograd.grad(loss.generator(real.detach(), fake), [fake])
    assert (grad_real < 0).all() and (grad_generator < 0).all()
    assert (grad_fake > 0).all() or name == "least-squares"  # whose target for fake logits is 0
    high, low = torch.full((8,), 3.0), torch.full((8,), -3.0)
    assert (loss.margin(high, low) > 0).all() and (loss.margin(low, high) < 0).all()
    if loss.probability is not None:
        assert 0.9 < float(loss.mean_probability(high, low)) <= 1 and 0 <= float(loss.mean_probability(low, high)) < 0.1
    shifted = loss.discriminator(high + 50, low + 50)
    assert (loss.decision_boundary is None) == torch.allclose(shifted, loss.discriminator(high, low))
    if loss.decision_boundary is not None:
        assert float(loss.margin(torch.tensor([loss.decision_boundary]), low[:1])) == 0


def value(tensor: torch.Tensor) -> float:
    return float(tensor.detach())


def linear(weight: torch.Tensor):
    return lambda images: (images * weight).sum(dim=(1, 2, 3))


def test_penalties_of_linear_critic_closed_form():
    """Its input gradient is its weight, everywhere."""
    weight = torch.randn(1, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    real, fake = torch.rand(6, 2, 5, 4, requires_grad=True), torch.rand(6, 2, 5, 4)
    squared = float(weight.square().sum())
    assert float(zero_centered_penalty(linear(weight)(real), real)) == pytest.approx(squared, rel=1e-5)
    one_centered = (math.sqrt(squared) - 1) ** 2
    assert float(gradient_penalty(linear(weight), real, fake, torch.rand(6))) == pytest.approx(one_centered, rel=1e-5)
    assert float(dragan_penalty(linear(weight), real, torch.randn(6, 2, 5, 4))) == pytest.approx(one_centered, rel=1e-5)


def test_gradient_penalty_interpolates_and_dragan_perturbs():
    """For D(x) = |x|^2 / 2 the input gradient is x itself, so the penalty shows where it was computed."""

    def square(images: torch.Tensor) -> torch.Tensor:
        return images.square().sum(dim=(1, 2, 3)) / 2

    real, fake = torch.full((2, 1, 1, 1), 5.0), torch.full((2, 1, 1, 1), 1.0)
    assert value(gradient_penalty(square, real, fake, torch.tensor([1.0, 1.0]))) == pytest.approx(16)
    assert value(gradient_penalty(square, real, fake, torch.tensor([0.0, 0.5]))) == pytest.approx((0 + 4) / 2)
    spread = torch.tensor([1.0, 5.0]).reshape(2, 1, 1, 1)
    half = float(spread.std()) / 2
    noise = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
    assert value(dragan_penalty(square, spread, noise)) == pytest.approx((half**2 + (5 - half - 1) ** 2) / 2, rel=1e-5)


def test_penalties_of_packs():
    real = torch.rand(6, 1, 4, 4, requires_grad=True)
    logits = real.reshape(3, -1).sum(dim=1)  # two images per logit, an input gradient of 1 in each of 32 values
    assert float(zero_centered_penalty(logits, real)) == pytest.approx(32)


def test_constant_critic_has_finite_penalty_gradient():
    weight = torch.zeros(1, 1, 4, 4, requires_grad=True)
    cost = gradient_penalty(linear(weight), torch.rand(3, 1, 4, 4), torch.rand(3, 1, 4, 4), torch.rand(3))
    (gradient,) = torch.autograd.grad(cost, [weight])
    assert value(cost) == pytest.approx(1, abs=1e-5) and bool(gradient.isfinite().all())


def test_command_line_offers_every_built_in_penalty():
    assert tuple(PENALTIES) == known_names.PENALTIES
