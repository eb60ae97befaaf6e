"""Generators and discriminators. Each architecture is one file that cites its paper; the rest is shared layers."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cardigan.nets.convolution import FastConv2d, FastConvTranspose2d
    from cardigan.nets.interface import Discriminator, Generator
    from cardigan.nets.table import NETS, Architecture, build_discriminator, build_generator

__all__ = [
    "NETS",
    "Architecture",
    "Discriminator",
    "FastConv2d",
    "FastConvTranspose2d",
    "Generator",
    "build_discriminator",
    "build_generator",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cardigan.nets import convolution, interface, table

    return {**vars(convolution), **vars(interface), **vars(table)}[name]


def __dir__() -> list[str]:
    return sorted(__all__)
