"""Our forms of the 4x4 stride-2 convolution against PyTorch's, to the second derivative."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, conv_transpose2d

from cardigan.nets import convolution
from cardigan.nets.convolution import Convolution, Correlated, Deconvolution, Doubled, Halved

SHAPES = [(2, 3, 5, 8, 8), (1, 2, 4, 4, 12), (3, 1, 2, 6, 2)]


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_matrix_products_are_the_convolution(shape, layout):
    batch, narrow, wide, height, width = shape
    x = doubles(batch, narrow, height, width).to(memory_format=layout)
    w, g = doubles(wide, narrow, 4, 4), doubles(batch, wide, height // 2, width // 2).to(memory_format=layout)
    x.requires_grad_(), w.requires_grad_()
    forward = conv2d(x, w, None, 2, 1)
    to_x, to_w = torch.autograd.grad(forward, (x, w), g)
    assert torch.allclose(convolution.halved_by_product(x, w), forward)
    assert torch.allclose(convolution.doubled_by_product(g, w), conv_transpose2d(g, w, None, 2, 1))
    assert torch.allclose(convolution.doubled_by_product(g, w), to_x)
    assert torch.allclose(convolution.correlated_by_product(x, g), to_w)


@pytest.mark.parametrize("by_product", [False, True])
def test_derivatives_to_the_second(by_product, monkeypatch):
    """gradgradcheck compares with finite differences, so nothing here trusts PyTorch's convolution."""
    if by_product:
        for name, limit in (("LARGE_WEIGHTS", 0), ("SHORT_ROWS", 99), ("CORRELATED_WEIGHTS", 0), ("CORRELATED_ROWS", 10**6)):
            monkeypatch.setattr(convolution, name, limit)
    x, w, g = (tensor.requires_grad_() for tensor in (doubles(2, 2, 4, 6), doubles(3, 2, 4, 4), doubles(2, 3, 2, 3)))
    for function, inputs in ((Halved, (x, w)), (Doubled, (g, w)), (Correlated, (x, g))):
        assert torch.autograd.gradcheck(function.apply, inputs)
        assert torch.autograd.gradgradcheck(function.apply, inputs)


LAYERS = {
    "halves, large weights": (Convolution(256, 512, 4, 2, 1), (4, 256, 8, 8)),
    "halves, middle weights": (Convolution(128, 256, 4, 2, 1, bias=False), (4, 128, 16, 16)),
    "halves, small weights": (Convolution(8, 16, 4, 2, 1), (4, 8, 16, 16)),
    "halves, odd picture": (Convolution(256, 512, 4, 2, 1), (2, 256, 9, 8)),
    "ends": (Convolution(64, 1, 4), (64, 64, 4, 4)),  # of only four results most may lie near zero, where errors weigh more
    "ends, not square": (Convolution(64, 3, (4, 5)), (64, 64, 4, 5)),
    "keeps one axis": (Convolution(16, 32, (4, 3), (2, 1), 1), (4, 16, 8, 5)),
    "doubles, large weights": (Deconvolution(512, 256, 4, 2, 1), (4, 512, 4, 4)),
    "doubles, middle weights": (Deconvolution(256, 128, 4, 2, 1, bias=False), (4, 256, 8, 8)),
    "doubles, with a remainder": (Deconvolution(64, 32, 4, 2, 1, output_padding=(1, 0)), (4, 64, 4, 4)),
    "begins": (Deconvolution(32, 64, (4, 5)), (4, 32, 1, 1)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_bf16_layers_equal_fp32_within_bf16_rounding(name):
    """bf16 keeps 8 bits: inputs, weights and results are each rounded by up to 2^-9, and sums of rounded parts add to that."""
    torch.manual_seed(0)
    layer, shape = LAYERS[name]
    layer = copy.deepcopy(layer).to(memory_format=torch.channels_last)
    layer.reset_parameters()
    plain = nn.Conv2d if isinstance(layer, Convolution) else nn.ConvTranspose2d
    x = torch.randn(shape).to(memory_format=torch.channels_last).requires_grad_()
    expected = plain.forward(layer, x)
    direction = torch.rand_like(expected)  # positive: a bias receives its sum, which must not cancel
    inputs = [x, *layer.parameters()]
    wanted = [expected.detach(), *torch.autograd.grad(expected, inputs, direction)]
    with torch.autocast("cpu", torch.bfloat16):
        drawn = layer(x)
    assert drawn.dtype == torch.bfloat16
    got = [drawn.detach(), *torch.autograd.grad(drawn.float(), inputs, direction)]
    for mine, exact in zip(got, wanted, strict=True):
        error = (mine.float() - exact).norm() / exact.norm()
        assert 0 < error < 2**-7, error


def test_fp32_is_pytorch_to_the_bit():
    for layer, shape in LAYERS.values():
        plain = nn.Conv2d if isinstance(layer, Convolution) else nn.ConvTranspose2d
        x = torch.randn(shape)
        assert torch.equal(layer(x), plain.forward(layer, x))


def test_state_is_that_of_pytorch_layers():
    assert Convolution(2, 3, 4).state_dict().keys() == nn.Conv2d(2, 3, 4).state_dict().keys()
    Deconvolution(2, 3, 4).load_state_dict(nn.ConvTranspose2d(2, 3, 4).state_dict())
