"""Generators and discriminators. Each architecture is one file that cites its paper; the rest is shared layers."""

from typing import TYPE_CHECKING

from cardigan.public_names import import_on_first_use

if TYPE_CHECKING:
    from cardigan.nets.convolution import FastConv2d, FastConvTranspose2d
    from cardigan.nets.frozen import Frozen
    from cardigan.nets.interface import Discriminator, Generator
    from cardigan.nets.table import NETS, Architecture, build_discriminator, build_generator

__all__ = [
    "NETS",
    "Architecture",
    "Discriminator",
    "FastConv2d",
    "FastConvTranspose2d",
    "Frozen",
    "Generator",
    "build_discriminator",
    "build_generator",
]

__getattr__, __dir__ = import_on_first_use(
    __name__,
    {
        "FastConv2d": "convolution",
        "FastConvTranspose2d": "convolution",
        "Frozen": "frozen",
        "Discriminator": "interface",
        "Generator": "interface",
        "NETS": "table",
        "Architecture": "table",
        "build_discriminator": "table",
        "build_generator": "table",
    },
)
