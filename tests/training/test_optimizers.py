"""Optimizers by name: settings reach them, unknown names are refused, and on a GPU they must be fused."""

import pytest
import torch
from torch import nn

from cardigan.config_parts import OptimizerConfig
from cardigan.errors import CardiganError
from cardigan.training.devices import Devices
from cardigan.training.optimizers import OPTIMIZERS, build_optimizer


class RecordingDevices(Devices):
    """A CPU that builds optimizers as for a step in a CUDA graph."""

    @property
    def is_async(self) -> bool:
        return True


@pytest.fixture
def network() -> nn.Module:
    network = nn.Linear(3, 2)
    network.bias.requires_grad_(False)
    return network


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_settings_reach_the_optimizer(network, name):
    config = OptimizerConfig(name=name, learning_rate=0.25, beta1=0.375, beta2=0.75)
    optimizer = build_optimizer(network, config, Devices(torch.device("cpu")))
    (group,) = optimizer.param_groups
    assert group["lr"] == 0.25 and group["params"] == [network.weight]  # a frozen parameter is left out
    expected = {"sgd": {"momentum": 0.375}, "rmsprop": {"alpha": 0.75}}.get(name, {"betas": (0.375, 0.75)})
    assert {key: group[key] for key in expected} == expected


def test_sgd_step_equals_its_definition(network):
    """Two steps with momentum 0.5 and gradients of 1: v is 1, then 1.5."""
    optimizer = build_optimizer(
        network, OptimizerConfig(name="sgd", learning_rate=0.1, beta1=0.5), Devices(torch.device("cpu"))
    )
    before = network.weight.detach().clone()
    for _ in range(2):
        network.weight.grad = torch.ones_like(network.weight)
        optimizer.step()
    assert torch.allclose(before - network.weight, torch.full_like(before, 0.25))


def test_unknown_optimizer_raises(network):
    with pytest.raises(CardiganError, match="Unknown optimizer 'adan': did you mean 'adam'"):
        build_optimizer(network, OptimizerConfig(name="adan"), Devices(torch.device("cpu")))


def test_recorded_steps_need_a_fused_optimizer(network):
    devices = RecordingDevices(torch.device("cpu"))
    with pytest.raises(CardiganError, match="'rmsprop' is not fused"):
        build_optimizer(network, OptimizerConfig(name="rmsprop"), devices)
    assert build_optimizer(network, OptimizerConfig(name="sgd"), devices).defaults["fused"]
