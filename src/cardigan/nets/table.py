"""The networks by name: what they are built of, and which settings each of them reads.

Does not know training; `experiment/build.py` builds the networks of a run with it.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cardigan.config import Config, NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.errors import CardiganError, unknown
from cardigan.nets.dcgan import DcganDiscriminator, DcganGenerator
from cardigan.nets.interface import Discriminator, Generator
from cardigan.nets.mlp import MlpDiscriminator, MlpGenerator
from cardigan.nets.pacgan import PacDiscriminator, pac_spec
from cardigan.nets.r3gan import R3ganDiscriminator, R3ganGenerator
from cardigan.nets.resnet import ResnetDiscriminator, ResnetGenerator
from cardigan.nets.summary import LayerSummary as LayerSummary
from cardigan.nets.summary import ModelSummary as ModelSummary
from cardigan.nets.summary import summarize_model as summarize_model
from cardigan.rng import stream, use_generator

NetworkRole = Literal["generator", "discriminator"]
COMMON_OPTIONS = {"network", "width"}


@dataclass(frozen=True)
class Architecture:
    """G and D of one architecture, and the fields of NetworkConfig that each reads besides name and width."""

    generator: Callable[[NetworkConfig, int, ImageSpec], Generator]
    discriminator: Callable[[NetworkConfig, ImageSpec], Discriminator]
    generator_options: tuple[str, ...] = ()
    discriminator_options: tuple[str, ...] = ()
    supports_one_hot: bool = False
    """Whether it accepts one-hot labels. Every network accepts learned embeddings."""

    def supported_options(self, role: NetworkRole) -> set[str]:
        return {*COMMON_OPTIONS, *(self.generator_options if role == "generator" else self.discriminator_options)}


NETS = {
    "dcgan": Architecture(
        DcganGenerator,
        DcganDiscriminator,
        generator_options=("depth", "normalization", "spectral_norm", "conditioning", "initialization"),
        discriminator_options=(
            "depth",
            "normalization",
            "spectral_norm",
            "minibatch_stddev",
            "conditioning",
            "initialization",
        ),
        supports_one_hot=True,
    ),
    "resnet": Architecture(
        ResnetGenerator,
        ResnetDiscriminator,
        generator_options=(
            "depth",
            "normalization",
            "spectral_norm",
            "attention_resolution",
            "conditioning",
            "initialization",
        ),
        discriminator_options=(
            "depth",
            "spectral_norm",
            "attention_resolution",
            "minibatch_stddev",
            "conditioning",
            "initialization",
        ),
        supports_one_hot=False,
    ),
    "r3gan": Architecture(
        R3ganGenerator,
        R3ganDiscriminator,
        generator_options=("depth", "conditioning"),
        discriminator_options=("depth", "minibatch_stddev", "conditioning"),
        supports_one_hot=False,
    ),
    "mlp": Architecture(
        MlpGenerator,
        MlpDiscriminator,
        generator_options=("depth", "spectral_norm", "conditioning"),
        discriminator_options=("depth", "spectral_norm", "minibatch_stddev", "conditioning"),
        supports_one_hot=True,
    ),
}


def build_generator(config: Config, spec: ImageSpec) -> Generator:
    """Raises CardiganError for an unknown network, or a setting that it does not read or cannot follow."""
    return _architecture_for(config.generator, "generator", spec).generator(config.generator, config.latent.size, spec)


def build_discriminator(config: Config, spec: ImageSpec) -> Discriminator:
    """Raises CardiganError for an unknown network, or a setting that it does not read or cannot follow."""
    pac_image_spec = pac_spec(spec, config.pac)
    inner = _architecture_for(config.discriminator, "discriminator", pac_image_spec).discriminator(
        config.discriminator, pac_image_spec
    )
    return PacDiscriminator(inner, config.pac) if config.pac > 1 else inner


def build_networks(config: Config, spec: ImageSpec) -> tuple[Generator, Discriminator]:
    """Return both networks with initial weights, a function of the seed. Global random state is not used or changed."""
    with use_generator(stream(config.seed, "weights", 0)):
        return build_generator(config, spec), build_discriminator(config, spec)


def unsupported_options(config: NetworkConfig, role: NetworkRole) -> list[str]:
    """Return the fields with a value other than the default that this network does not support."""
    supported = _find_architecture(config).supported_options(role)
    return [
        field.name
        for field in dataclasses.fields(config)
        if field.name not in supported and getattr(config, field.name) != field.default
    ]


def _architecture_for(config: NetworkConfig, role: NetworkRole, spec: ImageSpec) -> Architecture:
    architecture = _find_architecture(config)
    for option in unsupported_options(config, role):
        supporting = [name for name, other in NETS.items() if option in other.supported_options(role)]
        alternatives = f", or choose a network that does ({', '.join(supporting)})" if supporting else ""
        raise CardiganError(
            f"{role}.{option} is {getattr(config, option)!r}, but the {role} of {config.network} does not read it: "
            f"set it to {getattr(NetworkConfig(), option)!r}{alternatives}."
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
