"""Parameters and multiply-adds of networks, and settings that are rejected."""

import dataclasses

import pytest
import torch

from cardigan.cli.known_names import NETWORK_OPTIONS
from cardigan.config import Config
from cardigan.config_parts import LatentConfig, NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.errors import CardiganError
from cardigan.nets.pacgan import PacDiscriminator, pac_spec
from cardigan.nets.table import (
    NETS,
    build_discriminator,
    build_generator,
    summarize_model,
    unsupported_fields,
    with_all_options,
)

NON_DEFAULT_VALUES = {
    "depth": 3,
    "normalization": "batch",
    "spectral_norm": True,
    "minibatch_stddev": 4,
    "conditioning": "projection",
    "initialization": "dcgan",
}
UNSUPPORTED_FIELDS = [
    (name, role, option)
    for name, family in NETS.items()
    for role in ("generator", "discriminator")
    for option in NON_DEFAULT_VALUES
    if getattr(family, role) is not None and option not in family.supported_fields(role)
]
NETWORKS = [
    (role, name) for name, family in NETS.items() for role in ("generator", "discriminator") if getattr(family, role)
]


def build(role, spec, **options):
    with torch.device("meta"):
        config = Config(latent=LatentConfig(size=6), **{role: NetworkConfig(**options)})
        return build_generator(config, spec) if role == "generator" else build_discriminator(config, spec)


def test_cost_of_small_dcgan_closed_form():
    """8x8 images of 3 channels, width 5: one step, from 8 to 4."""
    spec = ImageSpec(3, 8, 8, 0)
    drawn = summarize_model(build("generator", spec, width=5), spec, 6)
    assert [(layer.name, layer.module_type, layer.output_shape) for layer in drawn.layers] == [
        ("from_latent", "FastConvTranspose2d", (5, 4, 4)),
        ("up_convs.0", "FastConvTranspose2d", (3, 8, 8)),
    ]
    assert [layer.num_parameters for layer in drawn.layers] == [6 * 5 * 16 + 5, 5 * 3 * 16 + 3]
    assert [layer.multiply_adds for layer in drawn.layers] == [6 * 5 * 16, 5 * 3 * 16 * 16]
    summary = summarize_model(build("discriminator", spec, width=5), spec, 6)
    assert [layer.num_parameters for layer in summary.layers] == [3 * 5 * 16 + 5, 5 * 16 + 1]
    assert [layer.multiply_adds for layer in summary.layers] == [3 * 5 * 16 * 16, 5 * 16]


def test_cost_of_grouped_convolution_closed_form():
    spec = ImageSpec(1, 8, 8, 0)
    layers = {
        layer.name: layer
        for layer in summarize_model(build("discriminator", spec, network="r3gan", width=16, depth=1), spec, 6).layers
    }
    assert layers["blocks.0.0.expand"].multiply_adds == 64 * 16 * 32
    assert layers["blocks.0.0.grouped"].multiply_adds == 64 * 32 * 16 * 9
    assert layers["blocks.0.0.grouped"].num_parameters == 32 * 16 * 9 + 32
    assert layers["downsample_layers.0.transition"].multiply_adds == 16 * 16 * 32
    itself = layers["itself"]
    assert (itself.module_type, itself.num_parameters, itself.multiply_adds) == ("R3ganDiscriminator", 32 * 16, 32 * 16)


@pytest.mark.parametrize(("role", "name"), NETWORKS)
@pytest.mark.parametrize("whole", [False, True])
def test_layer_costs_sum_to_total(name, role, whole):
    read = {
        option: value
        for option, value in NON_DEFAULT_VALUES.items()
        if whole and option in NETS[name].supported_fields(role)
    }
    spec = ImageSpec(3, 16, 16, 4)
    network = build(role, spec, network=name, width=10, **read)
    summary = summarize_model(network, spec, 6)
    assert (
        summary.num_parameters
        == sum(parameter.numel() for parameter in network.parameters())
        == sum(layer.num_parameters for layer in summary.layers)
    )
    assert summary.multiply_adds == sum(layer.multiply_adds for layer in summary.layers) > 0


@pytest.mark.parametrize("name", [name for role, name in NETWORKS if role == "discriminator" and name != "projected"])
def test_cost_of_packed_discriminator(name):
    spec, config = ImageSpec(1, 8, 8, 0), Config(discriminator=NetworkConfig(network=name))
    inner = build_discriminator(config, pac_spec(spec, 2))
    packed, alone = summarize_model(PacDiscriminator(inner, 2), spec, 6), summarize_model(inner, pac_spec(spec, 2), 6)
    assert (packed.num_parameters, packed.multiply_adds) == (alone.num_parameters, alone.multiply_adds)


@pytest.mark.parametrize("name", ["dcgan", "resnet", "mlp"])
def test_spectral_norm_adds_no_cost_per_image(name):
    spec = ImageSpec(1, 16, 16, 0)
    assert (
        len(
            {
                summarize_model(build("generator", spec, network=name, spectral_norm=spectral), spec, 6)
                for spectral in (False, True)
            }
        )
        == 1
    )


@pytest.mark.parametrize(("name", "role", "option"), UNSUPPORTED_FIELDS)
def test_unsupported_fields_raise(name, role, option):
    spec = ImageSpec(1, 16, 16, 3)
    config = NetworkConfig(network=name, **{option: NON_DEFAULT_VALUES[option]})
    assert unsupported_fields(config, role) == [option]
    value = NON_DEFAULT_VALUES[option]
    with pytest.raises(
        CardiganError, match=rf"{role}\.{option} is {value!r}, but the {role} of {name} does not read it: set it to "
    ):
        build(role, spec, **dataclasses.asdict(config))


def test_every_option_is_supported_by_some_network():
    fields = {field.name for field in dataclasses.fields(NetworkConfig)}
    assert fields == {"network", "width", "options", "frozen_stages", *NON_DEFAULT_VALUES}
    assert fields == set().union(
        *(family.supported_fields(role) for family in NETS.values() for role in ("generator", "discriminator"))
    )


@pytest.mark.parametrize("role", ["generator", "discriminator"])
@pytest.mark.parametrize(
    ("options", "classes", "sentence"),
    [
        ({"network": "resent"}, 0, "did you mean 'resnet'"),
        (
            {"network": "resnet", "conditioning": "one-hot"},
            3,
            "learns an embedding of each class: set projection or auto",
        ),
        ({"network": "r3gan", "conditioning": "one-hot"}, 3, r"choose a network that has them \(dcgan, mlp\)"),
        (
            {"network": "dcgan", "conditioning": "projection"},
            0,
            "the run is unconditional: leave it out, or set conditional",
        ),
        (
            {"network": "dcgan", "depth": 5},
            0,
            "{role}.depth is 5, but images of 48x24 can be halved 4 times: set it to 4 or less",
        ),
        (
            {"network": "resnet", "options": {"attention_resolution": 10}},
            0,
            "{role}.options.attention_resolution is 10, but the shorter sides of the .* maps are .*6, 12.*: set one",
        ),
    ],
    ids=str,
)
def test_invalid_networks_raise(role, options, classes, sentence):
    with pytest.raises(CardiganError, match=sentence.replace("{role}", role)):
        build(role, ImageSpec(1, 48, 24, classes), **options)


@pytest.mark.parametrize("role", ["generator", "discriminator"])
@pytest.mark.parametrize(
    ("network", "options", "sentence"),
    [
        (
            "dcgan",
            {"attention_resolution": 8},
            "options.attention_resolution is given, (but the .* no options of its own|.* only the options upsampling)",
        ),
        (
            "resnet",
            {"attention": 8},
            "options.attention is given, .* only the options attention_resolution: leave it out",
        ),
        ("resnet", {"attention_resolution": "8"}, "options.attention_resolution is '8': expected int"),
        ("resnet", {"attention_resolution": -8}, "options.attention_resolution is -8, but the shorter sides"),
    ],
)
def test_invalid_options_raise(role, network, options, sentence):
    with pytest.raises(CardiganError, match=sentence):
        build(role, ImageSpec(1, 32, 32, 0), network=network, options=options)


def test_unknown_upsampling_raises():
    with pytest.raises(CardiganError, match=r"upsampling .ligth.: did you mean .light.\?"):
        build("generator", ImageSpec(1, 32, 32, 0), network="dcgan", options={"upsampling": "ligth"})


def test_options_of_builtin_networks_are_flags():
    """The command line knows them without importing torch."""
    for role in ("generator", "discriminator"):
        options = {
            name: value for architecture in NETS.values() for name, value in architecture.default_options(role).items()
        }
        assert options == NETWORK_OPTIONS[role]


def test_default_options_are_filled_in():
    config = NetworkConfig(network="resnet")
    assert with_all_options(config, "generator").options == {"attention_resolution": 0} and config.options == {}
