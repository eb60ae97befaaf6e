"""The light generator: its upsampling convolution, its shapes, classes and determinism."""

import pytest
import torch
from torch.nn.functional import conv2d, interpolate

from cardigan.config import Config
from cardigan.config_parts import LatentConfig, NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.nets.light import Gate
from cardigan.nets.stages import Stage, stages
from cardigan.nets.table import build_generator
from cardigan.nets.upsampling import UpsampleConv2d


def test_upsampling_convolution_equals_its_two_steps():
    """Nearest-neighbor upsampling, then the 3x3 convolution; outputs and both gradients, in fp64."""
    layer = UpsampleConv2d(3, 5, Stage((8, 12), (4, 6))).double()
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    kernel = layer.conv.parametrizations.weight.original
    expected = conv2d(interpolate(x, scale_factor=2, mode="nearest"), kernel.transpose(0, 1), padding=1)
    result = layer(x)
    assert torch.allclose(result, expected, atol=1e-12)
    weights = torch.randn_like(result)
    for mine, theirs in zip(
        torch.autograd.grad((result * weights).sum(), [x, kernel]),
        torch.autograd.grad((expected * weights).sum(), [x, kernel]),
        strict=True,
    ):
        assert torch.allclose(mine, theirs, atol=1e-10)


def test_gate_equals_glu():
    x = torch.randn(2, 6, 4, 5, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.glu(x, dim=1)
    weights = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad((Gate()(x) * weights).sum(), x)
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), x)
    assert torch.allclose(Gate()(x), expected) and torch.allclose(gradient, expected_gradient)


def test_constant_maps_stay_constant_inside():
    """A transposed convolution with free weights would draw a checkerboard."""
    layer = UpsampleConv2d(1, 1, Stage((16, 16), (8, 8)))
    inside = layer(torch.ones(1, 1, 8, 8))[..., 2:-2, 2:-2]
    assert torch.allclose(inside, inside[..., :1, :1].expand_as(inside), atol=1e-6)


def test_initial_weights_reach_the_kernel_inside():
    """Normal(0, 0.02) is drawn for the 3x3 kernel that the transposed kernel is computed from."""
    config = Config(
        generator=NetworkConfig(
            network="dcgan", width=16, initialization="dcgan", normalization="batch", options={"upsampling": "light"}
        )
    )
    layers = [m for m in build_generator(config, ImageSpec(3, 32, 32, 0)).modules() if isinstance(m, UpsampleConv2d)]
    assert len(layers) == 3
    for layer in layers[:-1]:
        assert layer.conv.parametrizations.weight.original.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(8, 8), (9, 13), (32, 32), (64, 48), (100, 60), (256, 256)])
@pytest.mark.parametrize("classes", [0, 3])
def test_shapes(size, channels, classes):
    spec = ImageSpec(channels, *size, classes)
    config = Config(
        latent=LatentConfig(size=6), generator=NetworkConfig(network="light", width=2, normalization="batch")
    )
    generator = build_generator(config, spec)
    labels = torch.arange(2) if classes else None
    images = generator(torch.randn(2, 6), labels)
    assert images.shape == (2, channels, *size) and images.abs().max() <= 1
    if classes:
        one_hot = torch.nn.functional.one_hot(labels, classes).float()
        generator.eval()
        z = torch.randn(2, 6)
        assert torch.equal(generator(z, labels), generator(z, one_hot))


def test_skip_of_stages_without_partner_is_no_error():
    config = Config(latent=LatentConfig(size=6), generator=NetworkConfig(network="light", width=2, options={"skip": 9}))
    assert len(stages(32, 32)) < 9
    assert not build_generator(config, ImageSpec(3, 32, 32, 0)).excitations


@pytest.mark.parametrize("depth", [1, 3])
def test_maps_keep_their_variance_without_normalization(depth):
    """Initial weights suit the gates. A skip-layer excitation halves what it gates, so it is left out."""
    config = NetworkConfig(network="light", width=16, depth=depth, options={"skip": 0})
    torch.manual_seed(0)
    generator = build_generator(Config(latent=LatentConfig(size=64), generator=config), ImageSpec(3, 64, 64, 0))
    deviations = []
    for module in [generator.first, *generator.stages]:
        module.register_forward_hook(lambda _, __, output: deviations.append(float(output.std())))
    with torch.no_grad():
        generator(torch.randn(64, 64))
    assert len(deviations) == 5 and all(0.4 < value < 3 for value in deviations), deviations
