"""The networks by name, and what they cost.

Does not know training; `assemble.py` is the only caller that turns a Config into networks to train.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cardigan.config import Config, NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.errors import unknown
from cardigan.nets.dcgan import DcganDiscriminator, DcganGenerator
from cardigan.nets.interface import Discriminator, Generator


@dataclass(frozen=True)
class Family:
    """The two players of one architecture."""

    generator: Callable[[NetworkConfig, int, ImageSpec], Generator]
    discriminator: Callable[[NetworkConfig, ImageSpec], Discriminator]


NETS = {"dcgan": Family(DcganGenerator, DcganDiscriminator)}


def build_generator(config: Config, spec: ImageSpec) -> Generator:
    return _family(config.generator).generator(config.generator, config.latent.size, spec)


def build_discriminator(config: Config, spec: ImageSpec) -> Discriminator:
    return _family(config.discriminator).discriminator(config.discriminator, spec)


def _family(config: NetworkConfig) -> Family:
    if config.network not in NETS:
        raise unknown("network", config.network, NETS)
    return NETS[config.network]


@dataclass(frozen=True)
class Description:
    """What a network costs."""

    parameters: int
    """Learned numbers."""
    multiply_adds: int
    """Of its convolutions and matrix products, for one picture forward."""


def describe(network: nn.Module, spec: ImageSpec, latent_size: int) -> Description:
    """Count the cost of a generator or a discriminator; builds nothing and computes nothing, networks may be on the meta device."""
    device = next(network.parameters()).device
    labels = torch.zeros(1, dtype=torch.int64, device=device) if spec.classes else None
    row = (latent_size,) if isinstance(network, Generator) else (spec.channels, spec.height, spec.width)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, *row, device=device), labels)
    return Description(sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops() // 2)
