"""What networks cost, and which settings they refuse."""

import dataclasses

import pytest
import torch

from cardigan.config import Config, LatentConfig, NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.errors import CardiganError
from cardigan.nets.packing import Packed, packed_spec
from cardigan.nets.table import NETS, build_discriminator, build_generator, describe, unread_options

CHANGED = {
    "depth": 3,
    "normalisation": "batch",
    "spectral": True,
    "attention": 8,
    "minibatch_deviation": 4,
    "conditioning": "projection",
    "initialisation": "dcgan",
}
UNREAD = [
    (name, player, option)
    for name, family in NETS.items()
    for player in ("generator", "discriminator")
    for option in CHANGED
    if option not in family.reads(player)
]


def built(player, spec, **options):
    with torch.device("meta"):
        config = Config(latent=LatentConfig(size=6), **{player: NetworkConfig(**options)})
        return build_generator(config, spec) if player == "generator" else build_discriminator(config, spec)


def test_the_cost_of_a_small_dcgan_is_that_on_paper():
    """8x8 pictures of 3 channels, width 5: one step, from 8 to 4."""
    spec = ImageSpec(3, 8, 8, 0)
    drawn = describe(built("generator", spec, width=5), spec, 6)
    assert [(layer.name, layer.kind, layer.shape) for layer in drawn.layers] == [
        ("start", "TransposedConvolution", (5, 4, 4)),
        ("doublings.0", "TransposedConvolution", (3, 8, 8)),
    ]
    assert [layer.parameters for layer in drawn.layers] == [6 * 5 * 16 + 5, 5 * 3 * 16 + 3]
    assert [layer.multiply_adds for layer in drawn.layers] == [6 * 5 * 16, 5 * 3 * 16 * 16]
    judged = describe(built("discriminator", spec, width=5), spec, 6)
    assert [layer.parameters for layer in judged.layers] == [3 * 5 * 16 + 5, 5 * 16 + 1]
    assert [layer.multiply_adds for layer in judged.layers] == [3 * 5 * 16 * 16, 5 * 16]


def test_the_cost_of_grouped_convolutions_is_that_on_paper():
    spec = ImageSpec(1, 8, 8, 0)
    layers = {layer.name: layer for layer in describe(built("discriminator", spec, network="r3gan", width=16, depth=1), spec, 6).layers}
    assert layers["blocks.0.0.widen"].multiply_adds == 64 * 16 * 32
    assert layers["blocks.0.0.mix"].multiply_adds == 64 * 32 * 16 * 9
    assert layers["blocks.0.0.mix"].parameters == 32 * 16 * 9 + 32
    assert layers["halvings.0.channels"].multiply_adds == 16 * 16 * 32
    itself = layers["itself"]
    assert (itself.kind, itself.parameters, itself.multiply_adds) == ("R3ganDiscriminator", 32 * 16, 32 * 16)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("player", ["generator", "discriminator"])
@pytest.mark.parametrize("whole", [False, True])
def test_layers_add_up(name, player, whole):
    read = {option: value for option, value in CHANGED.items() if whole and option in NETS[name].reads(player)}
    spec = ImageSpec(3, 16, 16, 4)
    network = built(player, spec, network=name, width=10, **read)
    cost = describe(network, spec, 6)
    assert cost.parameters == sum(parameter.numel() for parameter in network.parameters()) == sum(layer.parameters for layer in cost.layers)
    assert cost.multiply_adds == sum(layer.multiply_adds for layer in cost.layers) > 0


@pytest.mark.parametrize("name", NETS)
def test_the_cost_of_a_packed_discriminator_is_that_of_a_pack(name):
    spec, config = ImageSpec(1, 8, 8, 0), Config(discriminator=NetworkConfig(network=name))
    inner = build_discriminator(config, packed_spec(spec, 2))
    packed, alone = describe(Packed(inner, 2), spec, 6), describe(inner, packed_spec(spec, 2), 6)
    assert (packed.parameters, packed.multiply_adds) == (alone.parameters, alone.multiply_adds)


@pytest.mark.parametrize("name", ["dcgan", "resnet", "mlp"])
def test_spectral_normalisation_costs_a_picture_nothing(name):
    spec = ImageSpec(1, 16, 16, 0)
    assert len({describe(built("generator", spec, network=name, spectral=spectral), spec, 6) for spectral in (False, True)}) == 1


@pytest.mark.parametrize(("name", "player", "option"), UNREAD)
def test_settings_that_are_not_read_are_refused(name, player, option):
    spec = ImageSpec(1, 16, 16, 3)
    config = NetworkConfig(network=name, **{option: CHANGED[option]})
    assert unread_options(config, player) == [option]
    with pytest.raises(CardiganError, match=rf"{player}\.{option} is {CHANGED[option]!r}, but the {player} of {name} does not read it: set it to "):
        built(player, spec, **dataclasses.asdict(config))


def test_every_setting_is_read_by_some_network():
    fields = {field.name for field in dataclasses.fields(NetworkConfig)}
    assert fields == {"network", "width", *CHANGED}
    assert fields == set().union(*(family.reads(player) for family in NETS.values() for player in ("generator", "discriminator")))


@pytest.mark.parametrize("player", ["generator", "discriminator"])
@pytest.mark.parametrize(
    ("options", "classes", "sentence"),
    [
        ({"network": "resent"}, 0, "did you mean 'resnet'"),
        ({"network": "resnet", "conditioning": "one-hot"}, 3, "learns an embedding of each class: set projection or auto"),
        ({"network": "r3gan", "conditioning": "one-hot"}, 3, r"choose a network that takes them \(dcgan, mlp\)"),
        ({"network": "dcgan", "conditioning": "projection"}, 0, "told no classes: leave it out, or set conditional"),
        ({"network": "dcgan", "depth": 5}, 0, "{player}.depth is 5, but pictures of 48x24 can be halved 4 times: set it to 4 or less"),
        ({"network": "resnet", "attention": 10}, 0, "{player}.attention is 10, but the shorter sides of the .* maps are .*6, 12.*: set one"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_refused(player, options, classes, sentence):
    with pytest.raises(CardiganError, match=sentence.replace("{player}", player)):
        built(player, ImageSpec(1, 48, 24, classes), **options)
