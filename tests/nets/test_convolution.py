"""Convolution layers and their first and second gradients against PyTorch's."""

import copy
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, conv_transpose2d
from torch.nn.utils.parametrize import register_parametrization
from torch.utils._python_dispatch import TorchDispatchMode

from cardigan.config import Config
from cardigan.config_parts import NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.nets import convolution
from cardigan.nets.convolution import (
    FastConv2d,
    FastConvTranspose2d,
    Geometry,
    StridedConv,
    TransposedConv,
    WeightGradient,
)
from cardigan.nets.table import build_discriminator

SHAPES = [(2, 3, 5, 8, 8), (1, 2, 4, 4, 12), (3, 1, 2, 6, 2)]
KERNELS = [1, 3, 4, (4, 3), 5]
STRIDES = [1, 2, (2, 1)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
CONV, BACKWARD = torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture(autouse=True)
def one_thread():
    """Convolutions here are too small for two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def explicit_gradients(monkeypatch):
    """Every layer uses the explicit gradients if autograd is on, as on a GPU."""
    monkeypatch.setattr(convolution, "_use_explicit_gradients", lambda *_: torch.is_grad_enabled())


def pytorch_forward(layer, x):
    return (nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.ConvTranspose2d).forward(layer, x)


def close(actual, exact):
    return len(actual) == len(exact) and all(
        (a - b).norm() <= 1e-10 * b.norm() for a, b in zip(actual, exact, strict=True)
    )


def derivatives(forward, layer, x):
    """Return the output, its first gradients, the gradients of a penalty, and those of a sum of all first gradients."""
    inputs = [x, *layer.parameters()]
    output = forward(layer, x)
    score = (output.sin() * torch.linspace(0.5, 1.5, output.numel(), dtype=x.dtype).view_as(output)).sum()
    first = torch.autograd.grad(score, inputs, create_graph=True)
    (gradient,) = torch.autograd.grad(score, x, create_graph=True)
    penalty = torch.autograd.grad(gradient.square().sum(), inputs, retain_graph=True, allow_unused=True)
    mixed = torch.autograd.grad(sum(gradient.square().sum() * (i + 1) for i, gradient in enumerate(first)), inputs)
    found = [output, *first, gradient, *penalty, *mixed]
    assert all(gradient is not None for gradient in found)
    return [gradient.detach() for gradient in found]


@pytest.mark.parametrize("stride", STRIDES, ids=str)
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_convolution_derivatives(kernel, stride, explicit_gradients):
    torch.manual_seed(0)
    x = doubles(2, 4, 11, 10).requires_grad_()
    for padding, dilation, groups, bias in product([0, (1, 2)], [1, 2], [1, 2, 4], [True, False]):
        layer = FastConv2d(4, 8, kernel, stride, padding, dilation, groups, bias, dtype=torch.float64)
        assert type(layer(x).grad_fn).__name__ == "StridedConvBackward"
        actual, exact = (derivatives(forward, layer, x) for forward in (FastConv2d.forward, pytorch_forward))
        assert close(actual, exact), (padding, dilation, groups, bias)


@pytest.mark.parametrize("stride", STRIDES, ids=str)
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_transposed_convolution_derivatives(kernel, stride, explicit_gradients):
    torch.manual_seed(0)
    x = doubles(2, 4, 5, 6).requires_grad_()
    ends = [0, (1, 0)] if stride != 1 else [0]
    for padding, end, groups, bias, dilation in product([0, (1, 0)], ends, [1, 2, 4], [True, False], [1, 2]):
        layer = FastConvTranspose2d(
            4, 8, kernel, stride, padding, end, groups, bias, dilation, dtype=torch.float64
        )  # fmt: skip
        assert type(layer(x).grad_fn).__name__ == "TransposedConvBackward"
        actual, exact = (derivatives(forward, layer, x) for forward in (FastConvTranspose2d.forward, pytorch_forward))
        assert close(actual, exact), (padding, end, groups, bias, dilation)


@pytest.mark.parametrize("layer", [FastConv2d(4, 6, 3, 2, 1, groups=2), FastConvTranspose2d(4, 6, 3, 2, 1, 1, 2)])
def test_channels_last_derivatives(layer, explicit_gradients):
    x = doubles(2, 4, 7, 7).requires_grad_()
    layer = copy.deepcopy(layer).double()
    exact = derivatives(pytorch_forward, layer, x)
    layer.to(memory_format=torch.channels_last)
    x = x.detach().to(memory_format=torch.channels_last).requires_grad_()
    assert close(derivatives(type(layer).forward, layer, x), exact)
    assert layer(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("transposed", [False, True])
def test_functions_pass_gradgradcheck(transposed):
    """gradgradcheck compares with finite differences, not with PyTorch's double backward."""
    torch.manual_seed(0)
    geometry = Geometry((2, 1), (1, 0), (1, 2), 2, (1, 0), transposed)
    x, w, g = (tensor.requires_grad_() for tensor in (doubles(1, 2, 4, 4), doubles(4, 1, 3, 2), doubles(1, 4, 2, 2)))
    bias = doubles(2 if transposed else 4).requires_grad_()
    of_maps, of_image = (None, bias) if transposed else (bias, None)
    like_x, like_w = x.detach(), w.detach()
    checked = [
        (lambda *tensors: StridedConv.apply(*tensors, geometry), (x, w, of_maps)),
        (lambda *tensors: TransposedConv.apply(*tensors, geometry, None), (g, w, of_image)),
        (lambda *tensors: TransposedConv.apply(*tensors, None, geometry, like_x), (g, w)),
        (lambda *tensors: WeightGradient.apply(*tensors, True, geometry, like_w), (x, g)),
        (lambda *tensors: WeightGradient.apply(*tensors, False, geometry, like_w)[0], (x, g)),
    ]
    for function, inputs in checked:
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_matrix_products_equal_convolution(shape, layout):
    batch, narrow, wide, height, width = shape
    x = doubles(batch, narrow, height, width).to(memory_format=layout)
    w, g = doubles(wide, narrow, 4, 4), doubles(batch, wide, height // 2, width // 2).to(memory_format=layout)
    x.requires_grad_(), w.requires_grad_()
    forward = conv2d(x, w, None, 2, 1)
    to_x, to_w = torch.autograd.grad(forward, (x, w), g)
    assert torch.allclose(convolution.strided_conv_by_product(x, w), forward)
    assert torch.allclose(convolution.transposed_conv_by_product(g, w), conv_transpose2d(g, w, None, 2, 1))
    assert torch.allclose(convolution.transposed_conv_by_product(g, w), to_x)
    assert torch.allclose(convolution.weight_gradient_by_product(x, g), to_w)


def recorded(name, function, used):
    """Return a function that adds its name to `used` when called."""

    def call(*inputs):
        used.add(name)
        return function(*inputs)

    return call


@pytest.mark.parametrize("layer", [FastConv2d(2, 3, 4, 2, 1), FastConvTranspose2d(3, 2, 4, 2, 1)])
def test_matrix_product_derivatives(layer, explicit_gradients, monkeypatch):
    limits = {
        "MIN_WEIGHTS_FOR_MATMUL": 0,
        "MAX_ROW_FOR_MATMUL": 99,
        "MIN_WEIGHTS_FOR_GRADIENT_MATMUL": 0,
        "MAX_PIXELS_PER_CHANNEL": 10**6,
    }
    for name, limit in limits.items():
        monkeypatch.setattr(convolution, name, limit)
    monkeypatch.setattr(convolution, "_is_bf16_on_cpu", lambda tensor: True)
    used = set()
    for name in ("strided_conv_by_product", "transposed_conv_by_product", "weight_gradient_by_product"):
        monkeypatch.setattr(convolution, name, recorded(name, getattr(convolution, name), used))
    layer, x = copy.deepcopy(layer).double(), doubles(2, layer.in_channels, 4, 6).requires_grad_()
    assert close(derivatives(type(layer).forward, layer, x), derivatives(pytorch_forward, layer, x))
    assert len(used) == 3


@pytest.mark.parametrize("limit", [0, 2**62])
def test_frozen_doubling_convolution(limit, monkeypatch):
    """Whether it is computed as a matrix product or by PyTorch, result and gradient are the same."""
    monkeypatch.setattr(convolution, "MIN_WEIGHTS_FOR_MATMUL", limit)
    monkeypatch.setattr(convolution, "_is_bf16_on_cpu", lambda tensor: True)
    used = set()
    for name in ("strided_conv_by_product", "transposed_conv_by_product"):
        monkeypatch.setattr(convolution, name, recorded(name, getattr(convolution, name), used))
    x, weight = doubles(2, 3, 2, 3).requires_grad_(), doubles(3, 5, 4, 4)
    expected = torch.nn.functional.conv_transpose2d(x, weight, stride=2, padding=1)
    found = convolution.frozen_doubling_conv(x, weight)
    gradient = torch.randn_like(expected)
    gradients = [torch.autograd.grad(output, x, gradient)[0] for output in (found, expected)]
    assert torch.allclose(found, expected, atol=1e-12)
    assert torch.allclose(*gradients, atol=1e-12)
    assert len(used) == (2 if limit == 0 else 0)


LAYERS = {
    "halves, large weights": (FastConv2d(256, 512, 4, 2, 1), (4, 256, 8, 8)),
    "halves, middle weights": (FastConv2d(128, 256, 4, 2, 1, bias=False), (4, 128, 16, 16)),
    "halves, small weights": (FastConv2d(8, 16, 4, 2, 1), (4, 8, 16, 16)),
    "halves, odd image": (FastConv2d(256, 512, 4, 2, 1), (2, 256, 9, 8)),
    "ends": (
        FastConv2d(64, 1, 4),
        (64, 64, 4, 4),
    ),  # many outputs, since a few could all be near 0, where relative errors are large
    "ends, not square": (FastConv2d(64, 3, (4, 5)), (64, 64, 4, 5)),
    "keeps one axis": (FastConv2d(16, 32, (4, 3), (2, 1), 1), (4, 16, 8, 5)),
    "keeps, grouped": (FastConv2d(16, 32, 3, padding=1, groups=4), (4, 16, 8, 5)),
    "keeps, 1x1": (FastConv2d(16, 32, 1, bias=False), (4, 16, 8, 5)),
    "doubles, large weights": (FastConvTranspose2d(512, 256, 4, 2, 1), (4, 512, 4, 4)),
    "doubles, middle weights": (FastConvTranspose2d(256, 128, 4, 2, 1, bias=False), (4, 256, 8, 8)),
    "doubles, with a remainder": (FastConvTranspose2d(64, 32, 4, 2, 1, output_padding=(1, 0)), (4, 64, 4, 4)),
    "begins": (FastConvTranspose2d(32, 64, (4, 5)), (4, 32, 1, 1)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_bf16_layers_equal_fp32_within_bf16_rounding(name):
    """bf16 has 8 bits: inputs, weights and results are rounded by up to 2^-9 each, and sums add more rounding."""
    torch.manual_seed(0)
    layer, shape = LAYERS[name]
    layer = copy.deepcopy(layer).to(memory_format=torch.channels_last)
    layer.reset_parameters()
    x = torch.randn(shape).to(memory_format=torch.channels_last).requires_grad_()
    expected = pytorch_forward(layer, x)
    direction = torch.rand_like(expected)  # positive: the bias gradient is its sum, which must not cancel
    inputs = [x, *layer.parameters()]
    expected_values = [expected.detach(), *torch.autograd.grad(expected, inputs, direction)]
    with torch.autocast("cpu", torch.bfloat16):
        output_bf16 = layer(x)
    assert output_bf16.dtype == torch.bfloat16
    actual_values = [output_bf16.detach(), *torch.autograd.grad(output_bf16.float(), inputs, direction)]
    for actual, exact in zip(actual_values, expected_values, strict=True):
        error = (actual.float() - exact).norm() / exact.norm()
        assert 0 < error < 2**-7, error


def test_autocast_leaves_float64_alone():
    with torch.autocast("cpu", torch.bfloat16):
        assert FastConv2d(2, 4, 1, dtype=torch.float64)(doubles(1, 2, 3, 3)).dtype == torch.float64


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fp32_equals_pytorch_bitwise(name, layout, explicit_gradients):
    torch.manual_seed(0)
    layer, shape = LAYERS[name]
    layer = copy.deepcopy(layer).to(memory_format=layout)
    x = torch.randn(shape).to(memory_format=layout).requires_grad_()
    actual, exact = layer(x), pytorch_forward(layer, x)
    assert torch.equal(actual, exact)
    inputs, direction = [x, *layer.parameters()], torch.randn_like(exact)
    actual, exact = (torch.autograd.grad(output, inputs, direction) for output in (actual, exact))
    for actual_gradient, reference in zip(actual, exact, strict=True):
        assert torch.equal(actual_gradient, reference) and actual_gradient.stride() == reference.stride()


def test_state_dict_matches_pytorch_layers():
    assert FastConv2d(2, 3, 4).state_dict().keys() == nn.Conv2d(2, 3, 4).state_dict().keys()
    FastConvTranspose2d(2, 3, 4).load_state_dict(nn.ConvTranspose2d(2, 3, 4).state_dict())


UNUSUAL = {
    "padding same": (FastConv2d(2, 4, 3, padding="same", groups=2), (1, 2, 5, 5)),
    "reflected": (FastConv2d(2, 4, 3, padding=1, padding_mode="reflect", groups=2), (1, 2, 5, 5)),
    "one image": (FastConv2d(2, 4, 1), (2, 5, 5)),
    "ends beyond a stride": (FastConvTranspose2d(2, 4, 3, 1, 1, 1, 2, dilation=2), (1, 2, 5, 5)),
    "one image, transposed": (FastConvTranspose2d(2, 4, 1), (2, 5, 5)),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_layers_use_pytorch_operations(name):
    layer, shape = UNUSUAL[name]
    x = torch.randn(shape, requires_grad=True)
    assert type(layer(x).grad_fn) is type(pytorch_forward(layer, x).grad_fn)
    assert torch.equal(layer(x), pytorch_forward(layer, x))


def test_output_size_matches_pytorch(explicit_gradients):
    layer, x = FastConvTranspose2d(2, 4, 3, 2, 1), torch.randn(1, 2, 5, 5, requires_grad=True)
    assert torch.equal(layer(x, [10, 9]), nn.ConvTranspose2d.forward(layer, x, [10, 9]))


def test_explicit_gradients_on_cpu():
    x = torch.randn(1, 4, 5, 5, requires_grad=True)
    grouped, pointwise, dense = FastConv2d(4, 4, 3, groups=2), FastConv2d(4, 4, 1), FastConv2d(4, 4, 3)
    nodes = [type(layer(x).grad_fn).__name__ for layer in (grouped, pointwise, dense)]
    assert nodes == ["StridedConvBackward", "StridedConvBackward", "ConvolutionBackward0"]


def test_exported_graphs_use_pytorch_convolutions():
    layers = nn.Sequential(FastConv2d(2, 4, 1), FastConvTranspose2d(4, 4, 3, groups=2))
    with torch.enable_grad():
        graph = torch.export.export(layers, (torch.randn(1, 2, 5, 5),)).graph
    called = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    assert called == ["aten.conv2d.default", "aten.conv_transpose2d.input"]


class CountingParametrization(nn.Module):
    """Doubles a weight and counts how often it is read."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def forward(self, weight):
        self.count += 1
        return 2 * weight


@pytest.mark.parametrize("layer", [FastConv2d(4, 4, 1), FastConv2d(4, 4, 3), FastConvTranspose2d(4, 4, 1)])
@pytest.mark.parametrize("recorded", [True, False])
def test_weight_is_read_once_per_call(layer, recorded):
    layer, parametrization = copy.deepcopy(layer), CountingParametrization()
    register_parametrization(layer, "weight", parametrization)
    parametrization.count = 0
    with torch.set_grad_enabled(recorded):
        layer(torch.randn(1, 4, 5, 5))
    assert parametrization.count == 1


class ConvolutionCounter(TorchDispatchMode):
    """Counts convolutions and records the filters they use."""

    def __init__(self):
        super().__init__()
        self.num_forward, self.num_input, self.num_weight, self.filters = 0, 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is CONV:
            self.num_forward += 1
            self.filters.add((*args[1].shape[2:], *args[5]))
        if func is BACKWARD:
            self.num_input += args[-1][0]
            self.num_weight += args[-1][1]
        return func(*args, **(kwargs or {}))


def test_input_gradient_computes_no_weight_gradient(explicit_gradients):
    layer, x = FastConv2d(4, 4, 3), torch.randn(1, 4, 5, 5, requires_grad=True)
    of_weight = ([layer.weight], [layer.bias], [layer.weight, layer.bias])
    expected_values = [([x], (1, 1, 0)), ([x, layer.weight], (1, 1, 1)), *((inputs, (1, 0, 1)) for inputs in of_weight)]
    for inputs, counts in expected_values:
        with ConvolutionCounter() as counter:
            torch.autograd.grad(layer(x).sum(), inputs, create_graph=True)
        assert (counter.num_forward, counter.num_input, counter.num_weight) == counts
    with ConvolutionCounter() as counter:
        layer(x).sum().backward()
    assert (counter.num_forward, counter.num_input, counter.num_weight) == (1, 1, 1)


def test_gradient_penalty_uses_convolutions_of_the_same_kind():
    """PyTorch's double backward would loop over groups and use filters as large as the image."""
    network = NetworkConfig(network="r3gan", width=16)
    discriminator = build_discriminator(Config(discriminator=network), ImageSpec(1, 16, 16, 0))
    num_layers = sum(isinstance(module, FastConv2d) for module in discriminator.modules())
    images = torch.randn(4, 1, 16, 16, requires_grad=True)
    with ConvolutionCounter() as counter:
        logits = discriminator(images)
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        torch.autograd.grad(gradient.square().sum() + logits.square().sum(), list(discriminator.parameters()))
    assert counter.filters <= {(1, 1, 1, 1), (3, 3, 1, 1)}
    # A layer computes its output, its input and weight gradients, and both gradients of its input gradient.
    assert (
        counter.num_forward <= 2 * num_layers
        and counter.num_input <= 2 * num_layers
        and counter.num_weight <= 2 * num_layers
    )
    assert counter.num_forward + counter.num_input + counter.num_weight >= 5 * num_layers
