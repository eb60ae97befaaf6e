"""One player's step: only it learns, and the right weights move, however its gradient lies in memory."""

import copy

import pytest
import torch

from cardigan.config import AdamConfig, AverageConfig
from cardigan.training.devices import Devices
from cardigan.training.schedule import average_weight, is_due, learning_rate
from cardigan.training.steps import learn

DEVICES = Devices(torch.device("cpu"))


def test_fused_adam_moves_the_right_weights_after_a_penalty():
    """A double backward gives contiguous gradients beside channels-last weights; fused Adam reads both as raw memory."""
    fused = torch.nn.Conv2d(3, 8, 4).to(memory_format=torch.channels_last)
    plain = copy.deepcopy(fused)
    images = torch.randn(4, 3, 8, 8, requires_grad=True)

    def penalty(network):
        (slope,) = torch.autograd.grad(network(images).sigmoid().sum(), images, create_graph=True)
        return slope.square().sum()

    (gradient,) = torch.autograd.grad(penalty(fused), [fused.weight])
    assert gradient.stride() != fused.weight.stride()  # otherwise this test proves nothing
    learn(fused, torch.optim.Adam(fused.parameters(), lr=0.1, fused=True), [penalty(fused)], DEVICES)
    learn(plain, torch.optim.Adam(plain.parameters(), lr=0.1, fused=False, foreach=False), [penalty(plain)], DEVICES)
    assert torch.allclose(fused.weight, plain.weight, atol=1e-5)


def test_only_the_player_learns():
    player, opponent = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    before = copy.deepcopy(player.weight), copy.deepcopy(opponent.weight)
    learn(player, torch.optim.SGD(player.parameters(), lr=0.1), [opponent(player(torch.ones(1, 2))).sum()], DEVICES)
    assert not torch.equal(player.weight, before[0])
    assert torch.equal(opponent.weight, before[1])
    assert all(parameter.grad is None for parameter in [*player.parameters(), *opponent.parameters()])


def test_learning_rate_rises_stays_and_falls():
    config = AdamConfig(learning_rate=1.0, warm_up_images=100, decay_images=400)
    assert learning_rate(config, 0) == pytest.approx(0.01)
    assert learning_rate(config, 49) == pytest.approx(0.5)
    assert learning_rate(config, 100) == learning_rate(config, 400) == 1.0
    assert learning_rate(config, 1600) == pytest.approx(0.5)


def test_average_has_the_half_life_it_says():
    config = AverageConfig(half_life_images=1000, ramp_up=0.0)
    influence = 1.0
    for _ in range(10):
        influence *= 1 - average_weight(config, 100_000, batch=100)
    assert influence == pytest.approx(0.5)
    assert average_weight(AverageConfig(half_life_images=0), 100, 64) == 1.0
    assert average_weight(AverageConfig(half_life_images=1000, ramp_up=0.1), 640, 64) == pytest.approx(0.5)


def test_cadence_survives_any_batch_size():
    assert [after for after in range(48, 500, 48) if is_due(100, after - 48, after)] == [144, 240, 336, 432]
