"""Weights of a trained network in one of another shape: what is copied still computes the same."""

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from cardigan.config import Config
from cardigan.config_parts import LatentConfig, NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.nets.table import build_discriminator, build_generator
from cardigan.nets.transfer import transfer_weights

NETWORKS = {
    "dcgan": {"normalization": "batch"},
    "light": {"normalization": "batch"},
    "resnet": {"normalization": "batch"},
    "r3gan": {},
    "mlp": {},
}


def randomize(network: nn.Module, seed: int) -> nn.Module:
    """Return the network as if it had been trained: no weight and no batch statistic as it began."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point() and not name.endswith(".u"):
                noise = torch.randn(value.shape, generator=random)
                value.copy_(noise.abs() + 0.5 if name.endswith("running_var") else 0.3 * noise)
    return network.eval()


def generator(network="light", spec=(3, 16, 16, 0), seed=0, latent=8, names=(), **fields):
    fields = {"width": 4, **NETWORKS[network], **fields}
    config = Config(generator=NetworkConfig(network=network, **fields), latent=LatentConfig(size=latent))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return randomize(build_generator(config, ImageSpec(*spec, names)), seed)


def discriminator(network="dcgan", spec=(3, 16, 16, 0), seed=0, **fields):
    config = Config(discriminator=NetworkConfig(network=network, width=4, **fields))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return randomize(build_discriminator(config, ImageSpec(*spec)), seed)


@pytest.mark.parametrize("network", NETWORKS)
def test_generators_of_equal_shape_are_copied_bit_for_bit(network):
    trained, new = generator(network, seed=1), generator(network, seed=2)
    z = torch.randn(4, 8)
    assert not torch.equal(new(z), trained(z))
    result = transfer_weights(new, trained, (3, 3))
    assert torch.equal(new(z), trained(z)) and not result.new and not result.adapted


@pytest.mark.parametrize("network", ["dcgan", "resnet", "r3gan", "mlp"])
def test_discriminators_of_equal_shape_are_copied_bit_for_bit(network):
    trained, new = discriminator(network, seed=1), discriminator(network, seed=2)
    images = torch.randn(4, 3, 16, 16)
    result = transfer_weights(new, trained, (3, 3))
    assert torch.equal(new(images), trained(images)) and not result.new and not result.adapted


def test_spectral_norms_are_those_of_the_copied_weights():
    trained, new = (discriminator(spectral_norm=True, seed=seed) for seed in (1, 2))
    transfer_weights(new, trained, (3, 3))
    weight = new.down_convs[1].weight.flatten(1)
    assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("network", ["dcgan", "light", "resnet", "r3gan"])
@pytest.mark.parametrize(("old", "new_channels"), [(1, 3), (3, 1), (3, 4), (4, 3), (1, 4)])
def test_channels_of_a_generator(network, old, new_channels):
    trained = generator(network, (old, 16, 16, 0), seed=1)
    new = generator(network, (new_channels, 16, 16, 0), seed=2)
    transfer_weights(new, trained, (old, new_channels))
    z = torch.randn(4, 8)
    before, after = logits(network, trained(z)), logits(network, new(z))  # before tanh, where the mapping is linear
    if new_channels == 1:
        assert torch.allclose(after, before[:, :3].mean(1, keepdim=True), atol=1e-4)
    else:
        assert torch.allclose(after[:, :3], before[:, :3].expand(-1, 3, -1, -1), atol=1e-4)
    if new_channels == 4 and network in {"light", "resnet", "r3gan"}:  # their last layer has a bias
        assert torch.allclose(after[:, 3], torch.tensor(3.0), atol=1e-3)


def logits(network: str, images: torch.Tensor) -> torch.Tensor:
    return images if network == "r3gan" else images.double().atanh().float()


@pytest.mark.parametrize("network", ["dcgan", "resnet", "r3gan"])
@pytest.mark.parametrize(("old", "new_channels"), [(1, 3), (3, 1), (3, 4)])
def test_channels_of_a_discriminator(network, old, new_channels):
    trained = discriminator(network, (old, 16, 16, 0), seed=1)
    new = discriminator(network, (new_channels, 16, 16, 0), seed=2)
    transfer_weights(new, trained, (old, new_channels))
    gray = torch.randn(4, 1, 16, 16)
    images = [gray.expand(-1, count, -1, -1) for count in (old, new_channels)]
    assert torch.allclose(new(images[1]), trained(images[0]), atol=1e-4)


@pytest.mark.parametrize("network", ["dcgan", "light", "r3gan", "mlp"])
def test_new_classes_begin_as_the_trained_generator(network):
    trained, new = generator(network, seed=1), generator(network, (3, 16, 16, 3), seed=2)
    transfer_weights(new, trained, (3, 3), [None, None, None])
    z = torch.randn(3, 8)
    assert torch.allclose(new(z, torch.arange(3)), trained(z), atol=1e-5)


@pytest.mark.parametrize(
    ("network", "conditioning"),
    [*((network, "auto") for network in NETWORKS), ("dcgan", "one-hot"), ("mlp", "one-hot")],
)
def test_classes_that_both_have_keep_their_images(network, conditioning):
    fields = {"conditioning": conditioning} if conditioning == "one-hot" else {}
    trained = generator(network, (3, 16, 16, 3), seed=1, **fields)
    new = generator(network, (3, 16, 16, 5), seed=2, **fields)
    transfer_weights(new, trained, (3, 3), [2, None, 0, None, None])
    z = torch.randn(2, 8)
    assert torch.allclose(new(z, torch.tensor([0, 2])), trained(z, torch.tensor([2, 0])), atol=1e-3)
    same = new(z[:1].expand(2, -1), torch.tensor([1, 3]))
    assert torch.allclose(same[0], same[1], atol=1e-3)  # both are the mean


def test_more_classes_than_the_latent_has_numbers():
    trained, new = (generator("light", (3, 16, 16, 12), seed=seed, latent=4) for seed in (1, 2))
    transfer_weights(new, trained, (3, 3), list(range(12)))
    z = torch.randn(12, 4)
    assert torch.allclose(new(z, torch.arange(12)), trained(z, torch.arange(12)), atol=1e-3)


def test_classes_of_a_discriminator():
    trained, new = (discriminator("resnet", (3, 16, 16, count), seed=count) for count in (3, 2))
    transfer_weights(new, trained, (3, 3), [1, None])
    images = torch.randn(2, 3, 16, 16)
    rows = trained.head.projection.embedding.weight
    assert torch.allclose(new(images, torch.tensor([0, 0])), trained(images, torch.tensor([1, 1])), atol=1e-4)
    assert torch.allclose(new.head.projection.embedding.weight[1], rows.mean(0), atol=1e-6)


@pytest.mark.parametrize("network", ["dcgan", "light", "resnet", "r3gan", "mlp"])
def test_more_latent_numbers_count_nothing_at_first(network):
    trained, new = generator(network, seed=1), generator(network, seed=2, latent=12)
    transfer_weights(new, trained, (3, 3))
    z = torch.randn(4, 12)
    assert torch.allclose(new(z), trained(z[:, :8]), atol=1e-5)


@pytest.mark.parametrize("normalization", ["batch", "none"])
@pytest.mark.parametrize(("side", "factor"), [(64, 2), (128, 4)])
def test_added_stages_enlarge_the_images(normalization, side, factor):
    """The maps that the last layer reads are those of the trained network; its gates are nearly open."""
    trained = generator(spec=(4, 32, 32, 0), seed=1, normalization=normalization)
    new = generator(spec=(4, side, side, 0), seed=2, normalization=normalization)
    z = torch.randn(64, 8)
    transfer_weights(new, trained, (4, 4))
    new.pass_through(trained, z, None)
    with torch.no_grad():
        maps, wanted = (network._maps(z, None)[-1] for network in (new, trained))
    enlarged = interpolate(wanted, scale_factor=factor, mode="nearest")
    assert (maps - enlarged).abs().mean() < 0.15 * wanted.std()


@pytest.mark.parametrize("network", ["dcgan", "light", "resnet", "r3gan", "mlp"])
@pytest.mark.parametrize("side", [8, 24, 32, 40])
def test_any_other_size_can_be_filled(network, side):
    trained, new = generator(network, seed=1), generator(network, (3, side, side, 0), seed=2)
    result = transfer_weights(new, trained, (3, 3))
    images = new(torch.randn(2, 8))
    assert images.shape == (2, 3, side, side) and images.isfinite().all()
    assert result.copied or result.adapted


@pytest.mark.parametrize("network", ["dcgan", "resnet", "r3gan", "mlp"])
@pytest.mark.parametrize("side", [8, 24, 32])
def test_any_other_size_of_a_discriminator(network, side):
    trained, new = discriminator(network, seed=1), discriminator(network, (3, side, side, 0), seed=2)
    result = transfer_weights(new, trained, (3, 3))
    assert new(torch.randn(2, 3, side, side)).isfinite().all() and (result.copied or result.adapted)


def test_equal_classes_are_copied_bit_for_bit():
    """Also their embeddings, in the same basis: blends of a model and its child are then between them."""
    trained, new = (generator(spec=(3, 16, 16, 3), seed=seed) for seed in (1, 2))
    result = transfer_weights(new, trained, (3, 3), [0, 1, 2])
    assert torch.equal(new.latent.embedding.weight, trained.latent.embedding.weight)
    z = torch.randn(3, 8)
    assert torch.equal(new(z, torch.arange(3)), trained(z, torch.arange(3))) and result.new == [
        "latent.embedding.weight"
    ]


def test_planes_of_a_discriminators_classes_are_put_in_order():
    trained, new = (discriminator("dcgan", (3, 16, 16, 2), seed=seed, conditioning="one-hot") for seed in (1, 2))
    transfer_weights(new, trained, (3, 3), [1, 0])
    images = torch.randn(2, 3, 16, 16)
    assert torch.allclose(new(images, torch.tensor([0, 1])), trained(images, torch.tensor([1, 0])), atol=1e-4)
    trained, new = (discriminator("mlp", (3, 16, 16, 2), seed=seed, conditioning="one-hot") for seed in (1, 2))
    assert "hidden.0.pieces.weight" in transfer_weights(new, trained, (3, 3), [1, 0]).new
    assert "hidden.0.pieces.weight" in transfer_weights(new, trained, (3, 3), [0, 1]).copied


def test_added_stages_need_a_learned_scale():
    trained, new = (generator(spec=(3, side, side, 0), normalization="batch-no-scale") for side in (16, 32))
    assert not new.pass_through(trained, torch.randn(4, 8), None)
