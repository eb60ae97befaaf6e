"""The networks by name: what they are built of, and which settings each of them reads.

Does not know training; `experiment/build.py` builds the networks of a run with it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from cardigan.checks import validate_type
from cardigan.config import Config
from cardigan.config_parts import NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.errors import CardiganError, unknown
from cardigan.nets.dcgan import DcganDiscriminator, DcganGenerator
from cardigan.nets.interface import Discriminator, FeatureDiscriminator, Generator
from cardigan.nets.light import LightGenerator
from cardigan.nets.mlp import MlpDiscriminator, MlpGenerator
from cardigan.nets.pacgan import PacDiscriminator, pac_spec
from cardigan.nets.projected import ProjectedDiscriminator
from cardigan.nets.r3gan import R3ganDiscriminator, R3ganGenerator
from cardigan.nets.resnet import ResnetDiscriminator, ResnetGenerator
from cardigan.nets.summary import LayerSummary as LayerSummary
from cardigan.nets.summary import ModelSummary as ModelSummary
from cardigan.nets.summary import summarize_model as summarize_model
from cardigan.rng import stream, use_generator

NetworkRole = Literal["generator", "discriminator"]
OptionValue = bool | int | float | str
COMMON_FIELDS = {"network", "width", "options", "frozen_stages"}


@dataclass(frozen=True)
class Architecture:
    """G and D of one architecture, and the settings that each of them reads."""

    generator: Callable[[NetworkConfig, int, ImageSpec], Generator] | None
    """Builds G from its config, the latent size and the image spec. Every option has a value then."""
    discriminator: Callable[[NetworkConfig, ImageSpec], Discriminator] | None
    """Builds D from its config and the image spec."""
    generator_fields: tuple[str, ...] = ()
    """Fields of NetworkConfig that G reads, besides the name and the width."""
    discriminator_fields: tuple[str, ...] = ()
    generator_options: Mapping[str, OptionValue] = field(default_factory=dict)
    """G's own settings (`NetworkConfig.options`) with their defaults, which also tell their types."""
    discriminator_options: Mapping[str, OptionValue] = field(default_factory=dict)
    supports_one_hot: bool = False
    """Whether it accepts one-hot labels. Every network accepts learned embeddings."""

    def supported_fields(self, role: NetworkRole) -> set[str]:
        return {*COMMON_FIELDS, *(self.generator_fields if role == "generator" else self.discriminator_fields)}

    def default_options(self, role: NetworkRole) -> Mapping[str, OptionValue]:
        return self.generator_options if role == "generator" else self.discriminator_options


NETS = {
    "dcgan": Architecture(
        DcganGenerator,
        DcganDiscriminator,
        generator_fields=("depth", "normalization", "spectral_norm", "conditioning", "initialization"),
        discriminator_fields=(
            "depth",
            "normalization",
            "spectral_norm",
            "minibatch_stddev",
            "conditioning",
            "initialization",
        ),
        generator_options={"upsampling": "transposed"},
        supports_one_hot=True,
    ),
    "resnet": Architecture(
        ResnetGenerator,
        ResnetDiscriminator,
        generator_fields=(
            "depth",
            "normalization",
            "spectral_norm",
            "conditioning",
            "initialization",
        ),
        discriminator_fields=(
            "depth",
            "spectral_norm",
            "minibatch_stddev",
            "conditioning",
            "initialization",
        ),
        generator_options={"attention_resolution": 0},
        discriminator_options={"attention_resolution": 0},
        supports_one_hot=False,
    ),
    "r3gan": Architecture(
        R3ganGenerator,
        R3ganDiscriminator,
        generator_fields=("depth", "conditioning"),
        discriminator_fields=("depth", "minibatch_stddev", "conditioning"),
        supports_one_hot=False,
    ),
    "light": Architecture(
        LightGenerator,
        None,
        generator_fields=("depth", "normalization", "conditioning", "initialization"),
        generator_options={"skip": 3},
        supports_one_hot=False,
    ),
    "projected": Architecture(
        None,
        ProjectedDiscriminator,
        discriminator_fields=("spectral_norm", "minibatch_stddev", "conditioning"),
        discriminator_options={"backbone": "efficientnet-lite0", "head_width": 128, "image_width": 0},
        supports_one_hot=False,
    ),
    "mlp": Architecture(
        MlpGenerator,
        MlpDiscriminator,
        generator_fields=("depth", "spectral_norm", "conditioning"),
        discriminator_fields=("depth", "spectral_norm", "minibatch_stddev", "conditioning"),
        supports_one_hot=True,
    ),
}


def build_generator(config: Config, spec: ImageSpec) -> Generator:
    """Return the generator that `config` describes for the images of `spec`, with initial weights.

    The weights are drawn from PyTorch's global generator. It maps z [batch, latent] and, if it is class-conditional,
    labels [batch] to images [batch, channels, height, width] in [-1, 1]. Raises CardiganError for an unknown network,
    or a setting that it does not read or cannot follow.

    Examples:
        >>> import cardigan
        >>> import torch
        >>> config = cardigan.config_for("mnist")
        >>> spec = cardigan.ImageSpec(channels=1, height=32, width=32, num_classes=10)
        >>> generator = cardigan.build_generator(config, spec)
        >>> generator(torch.randn(4, config.latent.size), torch.tensor([0, 1, 2, 3])).shape
        torch.Size([4, 1, 32, 32])
    """
    architecture = _architecture_for(config.generator, "generator", spec)
    assert architecture.generator is not None
    return architecture.generator(with_all_options(config.generator, "generator"), config.latent.size, spec)


def build_discriminator(config: Config, spec: ImageSpec) -> Discriminator:
    """Return the discriminator that `config` describes for the images of `spec`, with initial weights.

    The weights are drawn from PyTorch's global generator. It maps images [batch, channels, height, width] in [-1, 1]
    and, if it is class-conditional, labels [batch] to logits [batch] (with several heads [batch, heads]); larger means
    more real. Raises CardiganError for an unknown network, or a setting that it does not read or cannot follow.

    Examples:
        >>> import cardigan
        >>> import torch
        >>> config = cardigan.override(cardigan.config_for("mnist"), {"conditional": False})
        >>> spec = cardigan.ImageSpec(channels=1, height=32, width=32, num_classes=0)
        >>> cardigan.build_discriminator(config, spec)(torch.zeros(4, 1, 32, 32)).shape
        torch.Size([4])
    """
    pac_image_spec = pac_spec(spec, config.pac)
    architecture = _architecture_for(config.discriminator, "discriminator", pac_image_spec)
    assert architecture.discriminator is not None
    if config.pac > 1 and has_frozen_features(config.discriminator):
        raise CardiganError(
            f"pac is {config.pac}, but {config.discriminator.network} reads one image at a time: set pac to 1; "
            "discriminator.minibatch_stddev lets it see variety."
        )
    inner = architecture.discriminator(with_all_options(config.discriminator, "discriminator"), pac_image_spec)
    return PacDiscriminator(inner, config.pac) if config.pac > 1 else inner


def build_networks(config: Config, spec: ImageSpec) -> tuple[Generator, Discriminator]:
    """Return both networks with initial weights, a function of the seed. Global random state is not used or changed.

    Frozen random projections of a discriminator do not depend on the generator: it has a stream of its own then.
    """
    with use_generator(stream(config.seed, "weights", 0)):
        generator = build_generator(config, spec)
        if not has_frozen_features(config.discriminator):
            return generator, build_discriminator(config, spec)
    with use_generator(stream(config.seed, "discriminator weights", 0)):
        return generator, build_discriminator(config, spec)


def has_frozen_features(config: NetworkConfig) -> bool:
    """Return whether this discriminator scores the features of frozen layers."""
    discriminator = _find_architecture(config).discriminator
    return isinstance(discriminator, type) and issubclass(discriminator, FeatureDiscriminator)


def backbone_name(config: NetworkConfig) -> str:
    """Return the pretrained network that this discriminator learns from, or "" if it learns from none."""
    architecture = NETS.get(config.network)  # a plug-in's may be missing where only its generator is used
    default = architecture.discriminator_options.get("backbone", "") if architecture else ""
    return str(config.options.get("backbone", default))


def with_all_options(config: NetworkConfig, role: NetworkRole) -> NetworkConfig:
    """Return the config with a value for each option of its network.

    Raises CardiganError for an option that the network does not have, or a value of another type.
    """
    defaults = _find_architecture(config).default_options(role)
    available = f"only the options {', '.join(defaults)}" if defaults else "no options of its own"
    for name in config.options:
        if name not in defaults:
            raise CardiganError(
                f"{role}.options.{name} is given, but the {role} of {config.network} has {available}: leave it out."
            )
    given = {
        name: validate_type(value, type(defaults[name]), f"{role}.options.{name}")
        for name, value in config.options.items()
    }
    return replace(config, options={**defaults, **given})


def unsupported_fields(config: NetworkConfig, role: NetworkRole) -> list[str]:
    """Return the fields with a value other than the default that this network does not support."""
    supported = _find_architecture(config).supported_fields(role)
    return [
        item.name
        for item in dataclasses.fields(config)
        if item.name not in supported and getattr(config, item.name) != item.default
    ]


def _architecture_for(config: NetworkConfig, role: NetworkRole, spec: ImageSpec) -> Architecture:
    architecture = _find_architecture(config)
    if getattr(architecture, role) is None:
        raise CardiganError(
            f"{role}.network is {config.network!r}, which has no {role}: choose one of "
            f"{', '.join(name for name, other in NETS.items() if getattr(other, role) is not None)}."
        )
    for name in unsupported_fields(config, role):
        supporting = [network for network, other in NETS.items() if name in other.supported_fields(role)]
        alternatives = f", or choose a network that does ({', '.join(supporting)})" if supporting else ""
        raise CardiganError(
            f"{role}.{name} is {getattr(config, name)!r}, but the {role} of {config.network} does not read it: "
            f"set it to {getattr(NetworkConfig(), name)!r}{alternatives}."
        )
    if config.conditioning == "one-hot" and not architecture.supports_one_hot:
        raise CardiganError(
            f"{role}.conditioning is 'one-hot', but {config.network} has no one-hot inputs, it learns an embedding of "
            "each class: set projection or auto, or choose a network that has them "
            f"({', '.join(name for name, other in NETS.items() if other.supports_one_hot)})."
        )
    if config.conditioning != "auto" and not spec.num_classes:
        raise CardiganError(
            f"{role}.conditioning is {config.conditioning!r}, but the run is unconditional: "
            "leave it out, or set conditional."
        )
    return architecture


def _find_architecture(config: NetworkConfig) -> Architecture:
    if config.network not in NETS:
        raise unknown("network", config.network, NETS)
    return NETS[config.network]
