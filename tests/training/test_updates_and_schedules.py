"""Gradient steps and schedules: only one network is updated, with any memory layout of the gradients."""

import copy

import pytest
import torch

from cardigan.config import EmaConfig, OptimizerConfig
from cardigan.training.devices import Devices
from cardigan.training.schedule import ema_weight, is_due, learning_rate
from cardigan.training.steps import apply_gradients

DEVICES = Devices(torch.device("cpu"))


def test_fused_adam_updates_right_weights_after_penalty():
    """A double backward gives contiguous gradients for channels-last weights; fused Adam reads both as raw memory."""
    fused = torch.nn.Conv2d(3, 8, 4).to(memory_format=torch.channels_last)
    plain = copy.deepcopy(fused)
    images = torch.randn(4, 3, 8, 8, requires_grad=True)

    def penalty(network):
        (input_gradient,) = torch.autograd.grad(network(images).sigmoid().sum(), images, create_graph=True)
        return input_gradient.square().sum()

    (gradient,) = torch.autograd.grad(penalty(fused), [fused.weight])
    assert gradient.stride() != fused.weight.stride()  # otherwise this test proves nothing
    apply_gradients(fused, torch.optim.Adam(fused.parameters(), lr=0.1, fused=True), [penalty(fused)], DEVICES)
    apply_gradients(
        plain, torch.optim.Adam(plain.parameters(), lr=0.1, fused=False, foreach=False), [penalty(plain)], DEVICES
    )
    assert torch.allclose(fused.weight, plain.weight, atol=1e-5)


def test_only_one_network_is_updated():
    network, opponent = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    before = copy.deepcopy(network.weight), copy.deepcopy(opponent.weight)
    apply_gradients(
        network, torch.optim.SGD(network.parameters(), lr=0.1), [opponent(network(torch.ones(1, 2))).sum()], DEVICES
    )
    assert not torch.equal(network.weight, before[0])
    assert torch.equal(opponent.weight, before[1])
    assert all(parameter.grad is None for parameter in [*network.parameters(), *opponent.parameters()])


def test_learning_rate_schedule():
    config = OptimizerConfig(learning_rate=1.0, warmup_images=100, decay_start_images=400)
    assert learning_rate(config, 0) == pytest.approx(0.01)
    assert learning_rate(config, 49) == pytest.approx(0.5)
    assert learning_rate(config, 100) == learning_rate(config, 400) == 1.0
    assert learning_rate(config, 1600) == pytest.approx(0.5)


def test_ema_half_life():
    config = EmaConfig(half_life_images=1000, rampup_ratio=0.0)
    influence = 1.0
    for _ in range(10):
        influence *= 1 - ema_weight(config, 100_000, batch_size=100)
    assert influence == pytest.approx(0.5)
    assert ema_weight(EmaConfig(half_life_images=0), 100, 64) == 1.0
    assert ema_weight(EmaConfig(half_life_images=1000, rampup_ratio=0.1), 640, 64) == pytest.approx(0.5)


def test_intervals_do_not_depend_on_batch_size():
    assert [after for after in range(48, 500, 48) if is_due(100, after - 48, after)] == [144, 240, 336, 432]
