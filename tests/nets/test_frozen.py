"""Frozen parts of a network: not trained, not saved, moved and rounded by themselves."""

import copy

import pytest
import torch
from torch import nn

from cardigan.errors import CardiganError
from cardigan.nets.frozen import Frozen


class Owner(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.frozen = Frozen(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Softplus(), nn.Dropout(0.9)))
        self.head = nn.Conv2d(4, 1, 3)

    def forward(self, images):
        return self.head(self.frozen(images))


def test_frozen_part_is_not_trained_counted_or_saved():
    owner = Owner().train()
    assert [name for name, _ in owner.named_parameters()] == ["head.weight", "head.bias"]
    assert set(owner.state_dict()) == {"frozen._extra_state", "head.weight", "head.bias"}
    assert owner.state_dict()["frozen._extra_state"].tolist() == list(owner.frozen.digest())
    assert not any(module.training for module in owner.frozen.network.modules())
    before = owner.frozen.digest()
    owner(torch.randn(2, 1, 8, 8)).sum().backward()
    torch.optim.SGD(owner.parameters(), 0.1).step()
    assert copy.deepcopy(owner.frozen).digest() == before
    assert all(parameter.grad is None for parameter in owner.frozen.network.parameters())


def test_gradients_flow_through_twice():
    images = torch.randn(2, 1, 8, 8, requires_grad=True)
    owner = Owner()
    (gradient,) = torch.autograd.grad(owner(images).sum(), images, create_graph=True)
    gradient.square().sum().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    assert owner.head.weight.grad is not None and owner.head.weight.grad.abs().sum() > 0


def test_other_weights_refuse_the_checkpoint():
    Owner(0).load_state_dict(Owner(0).state_dict())
    with pytest.raises(CardiganError, match="has other weights here than in the checkpoint"):
        Owner(1).load_state_dict(Owner(0).state_dict())


def test_bf16_weights_are_rounded_once_and_fp32_ones_kept():
    owner, images = Owner(), torch.randn(2, 1, 8, 8)
    exact = owner.frozen(images)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = owner.frozen(images)
        again = owner.frozen._in(torch.bfloat16)
        assert owner.frozen._in(torch.bfloat16) is again
    assert rounded.dtype == torch.bfloat16 and exact.dtype == torch.float32
    assert torch.allclose(rounded.float(), exact, atol=0.05) and not torch.equal(rounded.float(), exact)
    assert torch.equal(owner.frozen(images), exact)


def test_follows_its_owner_to_a_device_but_not_to_a_type():
    owner = Owner().to(torch.float64)
    assert owner.frozen.network[0].weight.dtype == torch.float32 and owner.head.weight.dtype == torch.float64
    assert Owner().to("meta").frozen.network[0].weight.is_meta
