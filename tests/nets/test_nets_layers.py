"""Layers of networks against their formulas."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate, one_hot, pad
from torch.utils._python_dispatch import TorchDispatchMode

from cardigan.config import Config
from cardigan.config_parts import NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.nets.attention import SelfAttention
from cardigan.nets.conditioning import ConditionalLatent, Head, one_hot_labels
from cardigan.nets.convolution import FastConv2d, FastConvTranspose2d
from cardigan.nets.minibatch_stddev import append_minibatch_stddev, minibatch_stddev
from cardigan.nets.mlp import Maxout
from cardigan.nets.r3gan import ResidualBlock, downsample, group_width, upsample
from cardigan.nets.resnet import ConditionalNorm
from cardigan.nets.spectral import SpectralNorm, apply_spectral_norm
from cardigan.nets.stages import Stage, stages
from cardigan.nets.table import build_discriminator, build_generator

LAYERS = {
    "convolution": (FastConv2d(3, 5, 4, 2, 1), (2, 3, 8, 8)),
    "grouped": (nn.Conv2d(6, 4, 3, groups=2), (2, 6, 5, 5)),
    "transposed convolution": (FastConvTranspose2d(5, 3, 4, 2, 1), (2, 5, 4, 4)),
    "first transposed convolution": (FastConvTranspose2d(7, 3, (4, 5)), (2, 7, 1, 1)),
    "linear": (nn.Linear(7, 4), (2, 7)),
    "bf16 product": (FastConv2d(128, 256, 4, 2, 1), (1, 128, 4, 4)),
}


def spectral_layer(name):
    layer, shape = LAYERS[name]
    layer = copy.deepcopy(layer)
    apply_spectral_norm(layer)
    return layer, torch.randn(shape)


def largest_singular_value(layer):
    weight = layer.weight.detach()
    return torch.linalg.svdvals(
        (weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight).flatten(1)
    )[0].item()


@pytest.mark.parametrize("name", LAYERS)
def test_spectral_norm_converges_to_one(name):
    layer, x = spectral_layer(name)
    for _ in range(200):
        layer(x)
    assert largest_singular_value(layer.eval()) == pytest.approx(1, abs=1e-2)


def test_spectral_norm_of_an_embedding():
    table = nn.Embedding(5, 3)
    apply_spectral_norm(table)
    for _ in range(100):
        table(torch.tensor([1]))
    assert largest_singular_value(table.eval()) == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("bf16", [False, True])
def test_training_forward_is_one_power_iteration_step(name, bf16):
    layer, x = spectral_layer(name)
    norm, weight = layer.parametrizations.weight[0], layer.parametrizations.weight.original.detach()
    matrix = weight.transpose(0, norm.output_axis).flatten(1)
    before = norm.u.clone()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        layer.eval()(x)
        assert torch.equal(norm.u, before)
        layer.train()(x)
    step = matrix @ (matrix.t() @ before)
    assert torch.allclose(norm.u, step / step.norm(), atol=1e-6)
    assert not torch.equal(norm.u, before)


def test_gradient_of_spectral_norm():
    """With u constant, sigma = |W'u|, and a constant v adds nothing to its derivative: finite differences agree."""
    weight = torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    norm = SpectralNorm(weight.float(), 0).double().eval()
    assert torch.autograd.gradcheck(norm, weight)


def test_spectral_norm_allows_two_forwards_before_backward():
    layer, x = spectral_layer("convolution")
    for training in (True, False):
        first = layer.train(training)(x).square().sum()
        layer.train()(x + 1)
        first.backward()
    assert layer.parametrizations.weight.original.grad.isfinite().all()


@pytest.mark.parametrize(("batch", "group", "size"), [(8, 4, 4), (6, 4, 3), (4, 8, 4), (7, 4, 1), (1, 4, 1)])
@pytest.mark.parametrize("spatial_shape", [(), (3, 2)])
def test_minibatch_stddev(batch, group, size, spatial_shape):
    features = torch.randn(batch, 5, *spatial_shape)
    expected = [
        features[first : first + size].std(dim=0, correction=0).mean().item()
        for first in range(0, batch, size)
        for _ in range(size)
    ]
    assert minibatch_stddev(features, group).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    extended = append_minibatch_stddev(features, group)
    assert extended.shape == (batch, 6, *spatial_shape)
    assert torch.equal(extended[:, :5], features)
    assert torch.allclose(extended[:, 5:].flatten(1), torch.tensor(expected)[:, None], rtol=1e-4, atol=1e-6)


def test_minibatch_stddev_of_equal_images():
    features = torch.ones(4, 2, requires_grad=True)
    stddev = minibatch_stddev(features, 4)
    stddev.sum().backward()
    assert stddev.tolist() == pytest.approx([0.0] * 4, abs=2e-4) and features.grad.isfinite().all()


def test_self_attention_starts_as_identity():
    attention, x = SelfAttention(16), torch.randn(2, 16, 4, 6)
    assert torch.equal(attention(x), x)
    attention.gamma.data.fill_(0.5)
    query, key, value = (
        torch.einsum("oc,bchw->bohw", layer.weight[:, :, 0, 0], x)
        for layer in (attention.query, attention.key, attention.value)
    )
    key, value = (maps.unflatten(3, (3, 2)).unflatten(2, (2, 2)).amax(dim=(3, 5)) for maps in (key, value))
    weights = torch.einsum("bchw,bcij->bhwij", query, key).flatten(3).softmax(dim=3).unflatten(3, (2, 3))
    mixed = torch.einsum("bhwij,bcij->bchw", weights, value)
    assert torch.allclose(
        attention(x), x + 0.5 * torch.einsum("oc,bchw->bohw", attention.output.weight[:, :, 0, 0], mixed), atol=1e-5
    )


def test_r3gan_residual_branch_initialization():
    torch.manual_seed(0)
    x = torch.randn(2, 32, 5, 5)
    assert torch.equal(ResidualBlock(32, 4)(x), x)
    for num_blocks in (1, 16):
        block = ResidualBlock(64, num_blocks)
        for layer, fan_in in ((block.expand, 64), (block.grouped, 16 * 9)):
            assert layer.weight.std().item() == pytest.approx((2 / 1.04 / fan_in) ** 0.5 * num_blocks**-0.25, rel=0.05)


@pytest.mark.parametrize("role", ["generator", "discriminator"])
def test_r3gan_initial_output_is_independent_of_depth(role):
    spec, config = (
        ImageSpec(1, 16, 16, 0),
        {depth: NetworkConfig(network="r3gan", width=4, depth=depth) for depth in (1, 3)},
    )
    build = {
        "generator": lambda depth: build_generator(Config(generator=config[depth]), spec),
        "discriminator": lambda depth: build_discriminator(Config(discriminator=config[depth]), spec),
    }[role]
    shallow, deep = build(1), build(3)
    deep.load_state_dict(
        {
            **deep.state_dict(),
            **{name: value for name, value in shallow.state_dict().items() if not name.startswith("blocks")},
        }
    )
    x = torch.randn(2, 64) if role == "generator" else torch.randn(2, 1, 16, 16)
    assert torch.equal(shallow(x), deep(x))


@pytest.mark.parametrize(("channels", "width"), [(2, 2), (16, 16), (24, 12), (34, 2), (128, 16)])
def test_group_width(channels, width):
    assert group_width(channels) == width


def test_r3gan_resampling_is_bilinear():
    square, flat = Stage((8, 12), (4, 6)), Stage((8, 7), (4, 7))
    for step in (square, flat):
        small = torch.randn(2, 3, *step.small_size)
        assert torch.allclose(
            upsample(small, step), interpolate(small, size=step.large_size, mode="bilinear"), atol=1e-6
        )
    large = torch.randn(2, 3, 8, 12)
    row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    padded = pad(large, (1, 1, 1, 1), mode="replicate")
    expected = nn.functional.conv2d(padded, (row[:, None] * row).expand(3, 1, 4, 4), stride=2, groups=3)
    assert torch.allclose(downsample(large, square), expected, atol=1e-6)
    odd = Stage((9, 12), (4, 6))
    ones = torch.ones(1, 1, 9, 12)
    assert torch.allclose(downsample(ones, odd), ones[:, :, :4, :6]) and torch.allclose(
        upsample(ones[:, :, :4, :6], odd), ones
    )


def test_projection_head_logit_difference():
    head, features = Head(6, 3), torch.randn(2, 6)
    first, second = (head(features, torch.tensor([label, label])) for label in (0, 2))
    table = head.projection.embedding.weight
    assert torch.allclose(first - second, features @ (table[0] - table[2]), atol=1e-5)


@pytest.mark.parametrize("network", ["dcgan", "mlp", "resnet", "r3gan"])
def test_projection_logit_difference_of_networks(network):
    spec = ImageSpec(1, 16, 16, 3)
    d = build_discriminator(
        Config(discriminator=NetworkConfig(network=network, width=8, conditioning="projection")), spec
    )
    projection = d.projection if network == "dcgan" else d.head.projection
    seen = []
    projection.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    images = torch.randn(2, 1, 16, 16)
    first, second = (d(images, torch.tensor([label, label])) for label in (0, 2))
    table = projection.embedding.weight
    assert torch.equal(seen[0], seen[1]) and seen[0].abs().max() > 0
    assert torch.allclose(first - second, seen[0] @ (table[0] - table[2]), rtol=1e-3, atol=1e-5)


def test_conditional_batch_norm():
    norm, x = ConditionalNorm("batch", 3, 2), torch.randn(4, 2, 5, 5)
    labels = torch.tensor([0, 1, 1, 0])
    plain = norm.norm(x)
    assert torch.equal(norm(x, labels), plain)
    norm.scales.data[1], norm.shifts.data[1] = torch.tensor([1.0, -1.0]), torch.tensor([0.0, 3.0])
    changed = norm(x, labels)
    assert torch.equal(changed[[0, 3]], plain[[0, 3]])
    assert torch.allclose(changed[1:3, 0], 2 * plain[1:3, 0]) and torch.allclose(
        changed[1:3, 1], torch.full((2, 5, 5), 3.0)
    )


@pytest.mark.parametrize(("classes", "learned", "size"), [(0, True, 6), (4, False, 10), (4, True, 10), (9, True, 12)])
def test_conditional_latent(classes, learned, size):
    latent, z = ConditionalLatent(6, classes, learned), torch.randn(2, 6)
    features = latent(z, torch.tensor([1, 3]) if classes else None)
    assert latent.out_features == size and features.shape == (2, size) and torch.equal(features[:, :6], z)
    if classes:
        assert torch.equal(features[:, 6:], latent.embedding.weight[[1, 3]] if learned else torch.eye(4)[[1, 3]])
        weights = one_hot_labels(torch.tensor([1, 3]), classes)
        assert torch.equal(latent(z, weights), features)
        mixed = latent(z, (weights + weights.flip(0)) / 2)[:, 6:]
        assert torch.allclose(mixed, features[:, 6:].mean(0).expand(2, -1))


class HostReadCounter(TorchDispatchMode):
    """Counts the values read on the host, for which a GPU would have to finish."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_one_hot_labels_do_not_synchronize_with_the_host():
    labels = torch.tensor([2, 0, 1, 2])
    with HostReadCounter() as seen:
        rows = one_hot_labels(labels, 4)
    assert torch.equal(rows, one_hot(labels, 4).float()) and rows.dtype == torch.float32
    assert seen.count == 0


def test_maxout():
    layer, x = Maxout(3, 2), torch.randn(4, 3)
    pieces = x @ layer.pieces.weight.t() + layer.pieces.bias
    assert torch.allclose(
        layer(x), torch.stack([pieces[:, :5].max(dim=1).values, pieces[:, 5:].max(dim=1).values], dim=1)
    )


@pytest.mark.parametrize(
    ("sides", "count", "small"),
    [
        ((32, 32), None, [(16, 16), (8, 8), (4, 4)]),
        ((32, 32), 2, [(16, 16), (8, 8)]),
        ((24, 24), None, [(12, 12), (6, 6)]),
        ((24, 24), 3, [(12, 12), (6, 6), (3, 3)]),
        ((8, 65), None, [(4, 32), (4, 16), (4, 8), (4, 4)]),
        ((8, 65), 5, [(4, 32), (4, 16), (4, 8), (4, 4), (2, 2)]),
        ((9, 20), 3, [(4, 10), (4, 5), (2, 2)]),
    ],
)
def test_downsampling_stages(sides, count, small):
    result = stages(*sides, count)
    assert [step.small_size for step in result] == small
    assert [step.large_size for step in result] == [sides, *small[:-1]]
