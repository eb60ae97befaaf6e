"""The networks by name: what they are built of, and which settings each of them reads.

Does not know training; `assemble.py` is the only caller that turns a Config into networks to train.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cardigan.config import Config, NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.errors import CardiganError, unknown
from cardigan.nets.cost import Description as Description
from cardigan.nets.cost import LayerCost as LayerCost
from cardigan.nets.cost import describe as describe
from cardigan.nets.dcgan import DcganDiscriminator, DcganGenerator
from cardigan.nets.interface import Discriminator, Generator
from cardigan.nets.mlp import MlpDiscriminator, MlpGenerator
from cardigan.nets.packing import Packed, packed_spec
from cardigan.nets.r3gan import R3ganDiscriminator, R3ganGenerator
from cardigan.nets.resnet import ResnetDiscriminator, ResnetGenerator
from cardigan.rng import draws_from, stream

Player = Literal["generator", "discriminator"]
ALWAYS_READ = {"network", "width"}


@dataclass(frozen=True)
class Family:
    """The two players of one architecture, and the fields of NetworkConfig that each of them reads besides name and width."""

    generator: Callable[[NetworkConfig, int, ImageSpec], Generator]
    discriminator: Callable[[NetworkConfig, ImageSpec], Discriminator]
    generator_reads: tuple[str, ...] = ()
    discriminator_reads: tuple[str, ...] = ()
    one_hot: bool = False
    """Whether it can be told classes as ones and zeros, which is then its own way; every network can learn them."""

    def reads(self, player: Player) -> set[str]:
        return {*ALWAYS_READ, *(self.generator_reads if player == "generator" else self.discriminator_reads)}


NETS = {
    "dcgan": Family(
        DcganGenerator,
        DcganDiscriminator,
        generator_reads=("depth", "normalisation", "spectral", "conditioning", "initialisation"),
        discriminator_reads=("depth", "normalisation", "spectral", "minibatch_deviation", "conditioning", "initialisation"),
        one_hot=True,
    ),
    "resnet": Family(
        ResnetGenerator,
        ResnetDiscriminator,
        generator_reads=("depth", "normalisation", "spectral", "attention", "conditioning", "initialisation"),
        discriminator_reads=("depth", "spectral", "attention", "minibatch_deviation", "conditioning", "initialisation"),
        one_hot=False,
    ),
    "r3gan": Family(
        R3ganGenerator,
        R3ganDiscriminator,
        generator_reads=("depth", "conditioning"),
        discriminator_reads=("depth", "minibatch_deviation", "conditioning"),
        one_hot=False,
    ),
    "mlp": Family(
        MlpGenerator,
        MlpDiscriminator,
        generator_reads=("depth", "spectral", "conditioning"),
        discriminator_reads=("depth", "spectral", "minibatch_deviation", "conditioning"),
        one_hot=True,
    ),
}


def build_generator(config: Config, spec: ImageSpec) -> Generator:
    """Raises CardiganError for an unknown network, or a setting that it does not read or cannot follow."""
    return _checked_family(config.generator, "generator", spec).generator(config.generator, config.latent.size, spec)


def build_discriminator(config: Config, spec: ImageSpec) -> Discriminator:
    """Raises CardiganError for an unknown network, or a setting that it does not read or cannot follow."""
    seen = packed_spec(spec, config.packing)
    inner = _checked_family(config.discriminator, "discriminator", seen).discriminator(config.discriminator, seen)
    return Packed(inner, config.packing) if config.packing > 1 else inner


def build_players(config: Config, spec: ImageSpec) -> tuple[Generator, Discriminator]:
    """Return both networks as a run begins: their weights are a function of the seed, and no global random state is read or changed."""
    with draws_from(stream(config.seed, "weights", 0)):
        return build_generator(config, spec), build_discriminator(config, spec)


def unread_options(config: NetworkConfig, player: Player) -> list[str]:
    """Return the fields that are set to something, but that this player of this architecture does not read."""
    reads = _family(config).reads(player)
    return [field.name for field in dataclasses.fields(config) if field.name not in reads and getattr(config, field.name) != field.default]


def _checked_family(config: NetworkConfig, player: Player, spec: ImageSpec) -> Family:
    family = _family(config)
    for option in unread_options(config, player):
        readers = [name for name, other in NETS.items() if option in other.reads(player)]
        instead = f", or choose a network that does ({', '.join(readers)})" if readers else ""
        raise CardiganError(
            f"{player}.{option} is {getattr(config, option)!r}, but the {player} of {config.network} does not read it: "
            f"set it to {getattr(NetworkConfig(), option)!r}{instead}."
        )
    if config.conditioning == "one-hot" and not family.one_hot:
        raise CardiganError(
            f"{player}.conditioning is 'one-hot', but {config.network} has no place for ones and zeros, it learns an embedding of each class: "
            f"set projection or auto, or choose a network that takes them ({', '.join(name for name, other in NETS.items() if other.one_hot)})."
        )
    if config.conditioning != "auto" and not spec.classes:
        raise CardiganError(
            f"{player}.conditioning is {config.conditioning!r}, but the networks are told no classes: leave it out, or set conditional."
        )
    return family


def _family(config: NetworkConfig) -> Family:
    if config.network not in NETS:
        raise unknown("network", config.network, NETS)
    return NETS[config.network]
