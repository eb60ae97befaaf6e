"""Parts of networks against their formulas."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate, one_hot, pad
from torch.utils._python_dispatch import TorchDispatchMode

from cardigan.config import Config, NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.nets.attention import SelfAttention
from cardigan.nets.convolution import Convolution, TransposedConvolution
from cardigan.nets.mlp import Maxout
from cardigan.nets.parts import (
    LatentWithClass,
    Stage,
    Verdict,
    class_rows,
    minibatch_deviation,
    stages,
    with_minibatch_deviation,
)
from cardigan.nets.r3gan import ResidualBlock, doubled, group_width, halved
from cardigan.nets.resnet import ClassNorm
from cardigan.nets.spectral import UnitSpectralNorm, normalise_spectrally
from cardigan.nets.table import build_discriminator, build_generator

LAYERS = {
    "convolution": (Convolution(3, 5, 4, 2, 1), (2, 3, 8, 8)),
    "grouped": (nn.Conv2d(6, 4, 3, groups=2), (2, 6, 5, 5)),
    "transposed convolution": (TransposedConvolution(5, 3, 4, 2, 1), (2, 5, 4, 4)),
    "first transposed convolution": (TransposedConvolution(7, 3, (4, 5)), (2, 7, 1, 1)),
    "linear": (nn.Linear(7, 4), (2, 7)),
    "bf16 product": (Convolution(128, 256, 4, 2, 1), (1, 128, 4, 4)),
}


def normalised(name):
    layer, shape = LAYERS[name]
    layer = copy.deepcopy(layer)
    normalise_spectrally(layer)
    return layer, torch.randn(shape)


def largest_singular_value(layer):
    weight = layer.weight.detach()
    return torch.linalg.svdvals((weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight).flatten(1))[0].item()


@pytest.mark.parametrize("name", LAYERS)
def test_spectral_norm_becomes_one(name):
    layer, x = normalised(name)
    for _ in range(200):
        layer(x)
    assert largest_singular_value(layer.eval()) == pytest.approx(1, abs=1e-2)


def test_spectral_norm_of_an_embedding():
    table = nn.Embedding(5, 3)
    normalise_spectrally(table)
    for _ in range(100):
        table(torch.tensor([1]))
    assert largest_singular_value(table.eval()) == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("bf16", [False, True])
def test_a_training_pass_is_one_step_of_power_iteration(name, bf16):
    layer, x = normalised(name)
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


def test_derivative_of_spectral_norm():
    """With u held, sigma = |W'u|, and v, which is held as a constant, adds nothing to its derivative: finite differences must agree."""
    weight = torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    norm = UnitSpectralNorm(weight.float(), 0).double().eval()
    assert torch.autograd.gradcheck(norm, weight)


def test_a_normalised_network_may_be_passed_twice_before_its_backward():
    layer, x = normalised("convolution")
    for training in (True, False):
        first = layer.train(training)(x).square().sum()
        layer.train()(x + 1)
        first.backward()
    assert layer.parametrizations.weight.original.grad.isfinite().all()


@pytest.mark.parametrize(("batch", "group", "size"), [(8, 4, 4), (6, 4, 3), (4, 8, 4), (7, 4, 1), (1, 4, 1)])
@pytest.mark.parametrize("place", [(), (3, 2)])
def test_minibatch_deviation(batch, group, size, place):
    features = torch.randn(batch, 5, *place)
    expected = [features[first : first + size].std(dim=0, correction=0).mean().item() for first in range(0, batch, size) for _ in range(size)]
    assert minibatch_deviation(features, group).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    more = with_minibatch_deviation(features, group)
    assert more.shape == (batch, 6, *place)
    assert torch.equal(more[:, :5], features)
    assert torch.allclose(more[:, 5:].flatten(1), torch.tensor(expected)[:, None], rtol=1e-4, atol=1e-6)


def test_equal_pictures_deviate_by_nothing_and_have_gradients():
    features = torch.ones(4, 2, requires_grad=True)
    deviation = minibatch_deviation(features, 4)
    deviation.sum().backward()
    assert deviation.tolist() == pytest.approx([0.0] * 4, abs=2e-4) and features.grad.isfinite().all()


def test_attention_begins_as_the_identity_and_then_mixes_places():
    attention, x = SelfAttention(16), torch.randn(2, 16, 4, 6)
    assert torch.equal(attention(x), x)
    attention.gamma.data.fill_(0.5)
    query, key, value = (torch.einsum("oc,bchw->bohw", layer.weight[:, :, 0, 0], x) for layer in (attention.query, attention.key, attention.value))
    key, value = (maps.unflatten(3, (3, 2)).unflatten(2, (2, 2)).amax(dim=(3, 5)) for maps in (key, value))
    weights = torch.einsum("bchw,bcij->bhwij", query, key).flatten(3).softmax(dim=3).unflatten(3, (2, 3))
    mixed = torch.einsum("bhwij,bcij->bchw", weights, value)
    assert torch.allclose(attention(x), x + 0.5 * torch.einsum("oc,bchw->bohw", attention.output.weight[:, :, 0, 0], mixed), atol=1e-5)


def test_residual_branches_of_r3gan_begin_at_zero_and_scaled_for_the_depth():
    torch.manual_seed(0)
    x = torch.randn(2, 32, 5, 5)
    assert torch.equal(ResidualBlock(32, 4)(x), x)
    for num_blocks in (1, 16):
        block = ResidualBlock(64, num_blocks)
        for layer, fan_in in ((block.widen, 64), (block.mix, 16 * 9)):
            assert layer.weight.std().item() == pytest.approx((2 / 1.04 / fan_in) ** 0.5 * num_blocks**-0.25, rel=0.05)


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_depth_of_r3gan_does_not_change_what_it_begins_as(player):
    spec, config = ImageSpec(1, 16, 16, 0), {depth: NetworkConfig(network="r3gan", width=4, depth=depth) for depth in (1, 3)}
    build = {
        "generator": lambda depth: build_generator(Config(generator=config[depth]), spec),
        "discriminator": lambda depth: build_discriminator(Config(discriminator=config[depth]), spec),
    }[player]
    shallow, deep = build(1), build(3)
    deep.load_state_dict({**deep.state_dict(), **{name: value for name, value in shallow.state_dict().items() if not name.startswith("blocks")}})
    x = torch.randn(2, 64) if player == "generator" else torch.randn(2, 1, 16, 16)
    assert torch.equal(shallow(x), deep(x))


@pytest.mark.parametrize(("channels", "width"), [(2, 2), (16, 16), (24, 12), (34, 2), (128, 16)])
def test_groups_are_the_widest_that_divide(channels, width):
    assert group_width(channels) == width


def test_resampling_of_r3gan_is_bilinear():
    square, flat = Stage((8, 12), (4, 6)), Stage((8, 7), (4, 7))
    for step in (square, flat):
        small = torch.randn(2, 3, *step.small)
        assert torch.allclose(doubled(small, step), interpolate(small, size=step.large, mode="bilinear"), atol=1e-6)
    large = torch.randn(2, 3, 8, 12)
    row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    edged = pad(large, (1, 1, 1, 1), mode="replicate")
    wanted = nn.functional.conv2d(edged, (row[:, None] * row).expand(3, 1, 4, 4), stride=2, groups=3)
    assert torch.allclose(halved(large, square), wanted, atol=1e-6)
    odd = Stage((9, 12), (4, 6))
    ones = torch.ones(1, 1, 9, 12)
    assert torch.allclose(halved(ones, odd), ones[:, :, :4, :6]) and torch.allclose(doubled(ones[:, :, :4, :6], odd), ones)


def test_verdicts_on_two_classes_differ_by_the_inner_product():
    verdict, features = Verdict(6, 3), torch.randn(2, 6)
    first, second = (verdict(features, torch.tensor([label, label])) for label in (0, 2))
    table = verdict.projection.embedding.weight
    assert torch.allclose(first - second, features @ (table[0] - table[2]), atol=1e-5)


@pytest.mark.parametrize("network", ["dcgan", "mlp", "resnet", "r3gan"])
def test_logits_of_two_classes_differ_by_the_inner_product_of_the_last_features(network):
    spec = ImageSpec(1, 16, 16, 3)
    d = build_discriminator(Config(discriminator=NetworkConfig(network=network, width=8, conditioning="projection")), spec)
    projection = d.projection if network == "dcgan" else d.verdict.projection
    seen = []
    projection.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    images = torch.randn(2, 1, 16, 16)
    first, second = (d(images, torch.tensor([label, label])) for label in (0, 2))
    table = projection.embedding.weight
    assert torch.equal(seen[0], seen[1]) and seen[0].abs().max() > 0
    assert torch.allclose(first - second, seen[0] @ (table[0] - table[2]), rtol=1e-3, atol=1e-5)


def test_class_norm_begins_without_classes_and_then_has_a_scale_and_shift_for_each():
    norm, x = ClassNorm("batch", 3, 2), torch.randn(4, 2, 5, 5)
    labels = torch.tensor([0, 1, 1, 0])
    plain = norm.norm(x)
    assert torch.equal(norm(x, labels), plain)
    norm.scales.data[1], norm.shifts.data[1] = torch.tensor([1.0, -1.0]), torch.tensor([0.0, 3.0])
    changed = norm(x, labels)
    assert torch.equal(changed[[0, 3]], plain[[0, 3]])
    assert torch.allclose(changed[1:3, 0], 2 * plain[1:3, 0]) and torch.allclose(changed[1:3, 1], torch.full((2, 5, 5), 3.0))


@pytest.mark.parametrize(("classes", "learned", "size"), [(0, True, 6), (4, False, 10), (4, True, 10), (9, True, 12)])
def test_a_class_stands_beside_z(classes, learned, size):
    latent, z = LatentWithClass(6, classes, learned), torch.randn(2, 6)
    given = latent(z, torch.tensor([1, 3]) if classes else None)
    assert latent.size == size and given.shape == (2, size) and torch.equal(given[:, :6], z)
    if classes:
        assert torch.equal(given[:, 6:], latent.embedding.weight[[1, 3]] if learned else torch.eye(4)[[1, 3]])


class HostReads(TorchDispatchMode):
    """Counts the values that are read on the host, for which a GPU is waited for."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_class_rows_are_one_hot_and_read_nothing_on_the_host():
    labels = torch.tensor([2, 0, 1, 2])
    with HostReads() as seen:
        rows = class_rows(labels, 4)
    assert torch.equal(rows, one_hot(labels, 4).float()) and rows.dtype == torch.float32
    assert seen.count == 0


def test_maxout_is_the_largest_of_five():
    layer, x = Maxout(3, 2), torch.randn(4, 3)
    pieces = x @ layer.pieces.weight.t() + layer.pieces.bias
    assert torch.allclose(layer(x), torch.stack([pieces[:, :5].max(dim=1).values, pieces[:, 5:].max(dim=1).values], dim=1))


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
def test_halvings_end_of_themselves_or_go_on_as_far_as_asked(sides, count, small):
    found = stages(*sides, count)
    assert [step.small for step in found] == small
    assert [step.large for step in found] == [sides, *small[:-1]]
