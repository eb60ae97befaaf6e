"""Every network at any size and with any option: shapes, derivatives, precision, copies."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from cardigan.config import Config
from cardigan.config_parts import LatentConfig, NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.nets.table import NETS, build_discriminator, build_generator

BATCH, LATENT = 4, 6
WIDTHS = {"dcgan": 4, "resnet": 4, "r3gan": 4, "mlp": 32, "light": 4, "projected": 4}
PLAYED_WITH = {"light": "dcgan"}
"""The network of the discriminator, where it is another than the generator's."""
SIZES = [(8, 8), (28, 28), (32, 32), (33, 20), (64, 48)]
GENERATOR_OPTIONS = [
    ("dcgan", {"spectral_norm": True, "normalization": "batch", "conditioning": "projection"}),
    ("resnet", {"spectral_norm": True, "normalization": "batch", "options": {"attention_resolution": 8}, "depth": 2}),
    ("resnet", {"normalization": "batch-no-scale"}),
    ("r3gan", {"depth": 1, "conditioning": "projection"}),
    ("mlp", {"spectral_norm": True, "depth": 3, "conditioning": "projection"}),
    ("dcgan", {"conditioning": "one-hot"}),
    ("dcgan", {"depth": 3}),
    ("mlp", {"conditioning": "one-hot"}),
    ("light", {"normalization": "batch", "depth": 2, "options": {"skip": 1}}),
    ("dcgan", {"spectral_norm": True, "initialization": "dcgan", "options": {"upsampling": "light"}}),
    ("dcgan", {"normalization": "batch", "options": {"upsampling": "light"}}),
]
DISCRIMINATOR_OPTIONS = [
    ("dcgan", {"spectral_norm": True, "minibatch_stddev": 4, "conditioning": "projection"}),
    ("resnet", {"spectral_norm": True, "minibatch_stddev": 2, "options": {"attention_resolution": 8}, "depth": 2}),
    ("r3gan", {"depth": 1, "minibatch_stddev": 4}),
    ("mlp", {"spectral_norm": True, "minibatch_stddev": 4, "depth": 1, "conditioning": "projection"}),
    ("dcgan", {"conditioning": "one-hot"}),
    ("dcgan", {"depth": 1}),
    ("mlp", {"conditioning": "one-hot"}),
]


def generator(network, spec, **options):
    return build_generator(
        Config(
            latent=LatentConfig(size=LATENT), generator=NetworkConfig(network=network, width=WIDTHS[network], **options)
        ),
        spec,
    )


def discriminator(network, spec, **options):
    return build_discriminator(
        Config(discriminator=NetworkConfig(network=network, width=WIDTHS[network], **options)), spec
    )


@torch.no_grad()
def perturbed(network):
    """Change every weight a little, as training would: some start at 0."""
    for parameter in network.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return network


def inputs(classes):
    return torch.randn(BATCH, LATENT), (torch.tensor([1, 2, 0, 1]), torch.tensor([0, 2, 1, 2])) if classes else (
        None,
        None,
    )


def check_derivatives(g, d, z, labels):
    """All weights get finite gradients: G's through D, and D's through its input gradient, as penalties need."""
    assert all_finite(
        torch.autograd.grad(d(g(z, labels), labels).sum(), [p for p in g.parameters() if p.requires_grad])
    )
    images, weights = g(z, labels).detach().requires_grad_(), list(d.parameters())
    logits = d(images, labels)
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    penalty = gradient.square().sum()
    (second_gradient,) = torch.autograd.grad(
        penalty, next(weight for weight in weights if weight.dim() > 1), retain_graph=True
    )
    assert all_finite([gradient, second_gradient]) and second_gradient.abs().max() > 0
    assert all_finite(torch.autograd.grad(logits.sum() + penalty, weights))


def all_finite(tensors):
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


@pytest.mark.parametrize("network", [name for name, family in NETS.items() if family.generator])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("classes", [0, 3])
def test_any_image_size(network, size, channels, classes):
    torch.manual_seed(0)
    spec = ImageSpec(channels, *size, classes)
    opponent = PLAYED_WITH.get(network, network)
    g, d = perturbed(generator(network, spec)), perturbed(discriminator(opponent, spec))
    z, (labels, other_labels) = inputs(classes)
    images = g(z, labels)
    logits = d(images, labels)
    assert images.shape == (BATCH, channels, *size) and logits.shape == (BATCH,)
    assert images.isfinite().all() and images.std(dim=0).max() > 0
    check_derivatives(g, d, z, labels)
    with torch.autocast("cpu", torch.bfloat16):
        bf16_images, bf16_logits = g(z, labels), d(images, labels)
    assert bf16_logits.dtype == torch.float32
    assert (bf16_images.float() - images).norm() < 0.1 * images.norm()
    assert (bf16_logits - logits).norm() < 0.1 * (logits.norm() + 1)
    if classes:
        same = labels == other_labels
        assert (g(z, other_labels) - images).abs().flatten(1).amax(dim=1)[~same].min() > 0
        assert (d(images, other_labels) - logits)[~same].abs().min() > 0
        assert torch.equal(d(images, other_labels)[same], logits[same])


@pytest.mark.parametrize(("network", "options"), GENERATOR_OPTIONS, ids=str)
@pytest.mark.parametrize("classes", [0, 3])
def test_generator_options(network, options, classes):
    spec = ImageSpec(3, 16, 20, classes)
    g = generator(
        network, spec, **{name: value for name, value in options.items() if classes or name != "conditioning"}
    )
    z, (labels, other_labels) = inputs(classes)
    check_derivatives(perturbed(g), perturbed(discriminator("dcgan", spec)), z, labels)
    check_copies(g, lambda: g(z, labels))
    assert (
        not classes or (g(z, labels) - g(z, other_labels)).abs().amax(dim=(1, 2, 3))[labels != other_labels].min() > 0
    )


@pytest.mark.parametrize(("network", "options"), GENERATOR_OPTIONS, ids=str)
@torch.no_grad()
def test_class_weights_mix_classes(network, options):
    """One-hot class weights give the images of the labels bit for bit; other weights lie between them."""
    g = perturbed(generator(network, ImageSpec(1, 16, 16, 3), **options)).eval()
    z, labels = torch.randn(1, LATENT).expand(4, -1), torch.tensor([0, 1, 2, 0])
    images, one_hot = g(z, labels), torch.eye(3)[labels]
    assert g.accepts_class_weights and torch.equal(g(z, one_hot), images)
    almost, mixed = g(z, one_hot * 0.999 + 0.001 / 3), g(z, (one_hot + one_hot.roll(1, 0)) / 2)
    assert (almost - images).abs().max() < 0.1 * (images[0] - images[1]).abs().max()
    assert not torch.equal(mixed[1], images[1]) and torch.equal(mixed[0], images[0])  # 0 with 0, 1 with 0


@pytest.mark.parametrize(("network", "options"), DISCRIMINATOR_OPTIONS, ids=str)
@pytest.mark.parametrize("classes", [0, 3])
def test_discriminator_options(network, options, classes):
    spec = ImageSpec(3, 16, 20, classes)
    d = discriminator(
        network, spec, **{name: value for name, value in options.items() if classes or name != "conditioning"}
    )
    z, (labels, _) = inputs(classes)
    images = torch.randn(BATCH, 3, 16, 20)
    check_derivatives(generator("dcgan", spec), perturbed(d), z, labels)
    check_copies(d, lambda: d(images, labels))
    with torch.autocast("cpu", torch.bfloat16):
        assert d(images, labels).dtype == torch.float32


@pytest.mark.parametrize("role", ["generator", "discriminator"])
@pytest.mark.parametrize("network", ["dcgan", "resnet", "mlp"])
def test_spectral_norm_covers_every_weight(network, role):
    options = {
        "conditioning": "projection",
        "spectral_norm": True,
        **({"options": {"attention_resolution": 8}} if network == "resnet" else {}),
    }
    built = {"generator": generator, "discriminator": discriminator}[role](network, ImageSpec(1, 16, 16, 3), **options)
    layers = [
        module
        for module in built.modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding)
    ]
    assert layers and all(is_parametrized(layer, "weight") for layer in layers)


@pytest.mark.parametrize("network", [name for name, family in NETS.items() if family.discriminator])
def test_logits_depend_on_batch_only_with_minibatch_stddev(network):
    images = torch.randn(BATCH, 1, 16, 16)
    repeated = images[:1].expand(BATCH, -1, -1, -1)
    for group in (0, BATCH):
        d = perturbed(discriminator(network, ImageSpec(1, 16, 16, 0), minibatch_stddev=group))
        assert torch.allclose(d(images)[0], d(repeated)[0], rtol=1e-4, atol=1e-5) == (group == 0)


def check_copies(network, forward):
    """Copies, loaded weights and the channels-last layout give the same output. Evaluation uses no random numbers."""
    network.eval()
    rng_state = torch.random.get_rng_state()
    expected = forward()
    assert torch.equal(torch.random.get_rng_state(), rng_state)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    copied_network = copy.deepcopy(network)
    assert copied_network.state_dict().keys() == state.keys()
    perturbed(copied_network)
    assert torch.equal(forward(), expected), "a copy shares weights"
    perturbed(network).load_state_dict(state)
    assert torch.equal(forward(), expected)
    network.to(memory_format=torch.channels_last)
    assert torch.allclose(forward(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("network", "options"), GENERATOR_OPTIONS, ids=str)
def test_meta_device_generator_loads_weights(network, options):
    spec = ImageSpec(1, 16, 16, 3)
    g = generator(network, spec, **options).eval()
    with torch.device("meta"):
        empty = generator(network, spec, **options)
    empty.load_state_dict(g.state_dict(), assign=True)
    z, (labels, _) = inputs(3)
    assert torch.equal(empty.eval()(z, labels), g(z, labels))


def test_dcgan_state_dict_is_stable():
    """Checkpoints and the tutorial depend on these names and values."""
    spec = ImageSpec(1, 16, 16, 2)
    torch.manual_seed(0)
    g = generator("dcgan", spec, normalization="batch", initialization="dcgan", conditioning="one-hot")
    d = discriminator("dcgan", spec, conditioning="one-hot")
    assert list(d.state_dict()) == [
        f"{name}.{kind}" for name in ("down_convs.0", "down_convs.1", "head") for kind in ("weight", "bias")
    ]
    assert {name.split(".")[0] for name in g.state_dict()} == {"from_latent", "up_convs", "norms"}
    images = g(torch.linspace(-1, 1, 3 * LATENT).view(3, LATENT), torch.tensor([0, 1, 1]))
    logits = d(images, torch.tensor([0, 1, 1]))
    assert [images.sum().item(), *logits.tolist()] == pytest.approx(
        [-6.293725, -0.01419322, -0.1121673, -0.1161855], rel=1e-4
    )


def test_mlp_has_no_convolution():
    spec = ImageSpec(1, 8, 8, 0)
    for network in (generator("mlp", spec), discriminator("mlp", spec)):
        assert not [module for module in network.modules() if isinstance(module, nn.modules.conv._ConvNd)]
