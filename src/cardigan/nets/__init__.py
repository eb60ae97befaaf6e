"""Generators and discriminators. Each architecture is one file that cites its paper; the rest is shared layers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

MODULES = {
    "FastConv2d": "convolution",
    "FastConvTranspose2d": "convolution",
    "Frozen": "frozen",
    "Discriminator": "interface",
    "Generator": "interface",
    "NETS": "table",
    "Architecture": "table",
    "build_discriminator": "table",
    "build_generator": "table",
}
"""The module of each public name, which is imported on first use."""


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
