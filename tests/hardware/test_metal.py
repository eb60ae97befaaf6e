"""The workarounds for Apple's Metal give the same numbers, tested on a CPU that the code takes for Metal."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cardigan.errors import CardiganError
from cardigan.nets import convolution
from cardigan.nets.attention import SelfAttention
from cardigan.nets.convolution import FastConv2d, FastConvTranspose2d
from cardigan.objective.augment import augment, num_draws
from cardigan.objective.operations import resampling
from cardigan.overrides import override
from cardigan.recipes import config_for
from cardigan.training import devices, probe
from cardigan.training.devices import Devices


@pytest.fixture
def cpu_as_metal(monkeypatch):
    for module in (resampling, convolution, devices, probe):
        monkeypatch.setattr(module, "is_metal", lambda device: True)


def second_gradients(layer: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x).sin().sum(), x, create_graph=True)
    return list(torch.autograd.grad(gradient.square().sum(), list(layer.parameters())))


@pytest.mark.parametrize(
    "layer", [FastConv2d(4, 6, 4, 2, 1), FastConv2d(4, 8, 3, padding=1, groups=2), FastConvTranspose2d(4, 6, 4, 2, 1)]
)
def test_convolutions_use_contiguous_tensors_with_the_same_second_gradients(monkeypatch, layer):
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    expected = second_gradients(layer, x)
    are_contiguous: list[bool] = []
    contiguous = convolution._contiguous_on_metal

    def recording(*tensors):
        found = contiguous(*tensors)
        are_contiguous.extend(tensor.is_contiguous() for tensor in found)
        return found

    monkeypatch.setattr(convolution, "is_metal", lambda device: True)
    monkeypatch.setattr(convolution, "_use_explicit_gradients", lambda *arguments: True)
    monkeypatch.setattr(convolution, "_contiguous_on_metal", recording)
    for actual, reference in zip(second_gradients(layer, x), expected, strict=True):
        assert torch.allclose(actual, reference, rtol=1e-4, atol=1e-5)
    assert len(are_contiguous) >= 8 and all(are_contiguous)


def test_attention_uses_max_pool_with_indices():
    layer = SelfAttention(8)
    torch.nn.init.ones_(layer.gamma)
    names: set[str] = set()

    class OperationNames(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            names.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    with OperationNames():
        found = second_gradients(layer, torch.randn(2, 8, 8, 8))
    assert "max_pool2d_with_indices_backward" in names and all(each.isfinite().all() for each in found)


def test_networks_stay_contiguous(cpu_as_metal):
    network = Devices(torch.device("cpu")).prepare(torch.nn.Conv2d(3, 4, 3))
    assert network.weight.is_contiguous() and not network.weight.is_contiguous(memory_format=torch.channels_last)


def test_warp_gradient_and_thumbnails_are_unchanged(cpu_as_metal, monkeypatch):
    images, numbers = torch.rand(4, 3, 24, 20).requires_grad_(), torch.rand(4, num_draws(("rotate",)))

    def found() -> list[torch.Tensor]:
        warped = augment(images, ("rotate", "translation"), numbers, torch.tensor(1.0))
        return [*torch.autograd.grad(warped.square().sum(), images), probe.thumbnails(images.detach())]

    on_metal = found()
    for module in (resampling, probe):
        monkeypatch.setattr(module, "is_metal", lambda device: False)
    assert all(torch.equal(actual, reference) for actual, reference in zip(on_metal, found(), strict=True))


def test_bf16_and_several_processes_raise(monkeypatch):
    monkeypatch.setattr(devices, "find_device", lambda name, local_rank: torch.device("mps"))
    config = override(config_for("mnist"), {"device": "mps", "precision": "bf16"})
    with pytest.raises(CardiganError, match="bf16 transposed convolutions"):
        devices.open_devices(config)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CardiganError, match="gloo does not exchange"):
        devices.open_devices(config)
