"""Cardigan trains, judges and ships image GANs: `train`, `load`, and the pieces they are made of.

Names are loaded when they are first used, so that `cardigan --help` does not wait for torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cardigan.api import (
        Batches,
        CardiganError,
        Chance,
        Config,
        Devices,
        Event,
        Game,
        ImageSource,
        ImageSpec,
        Kind,
        Model,
        Players,
        Rules,
        Run,
        build_discriminator,
        build_generator,
        config_for,
        find_loss,
        iterate,
        load,
        mnist,
        override,
        read_events,
        sample_latents,
        stream,
        train,
        training_latents,
        update_average,
    )

__all__ = [
    "Batches",
    "CardiganError",
    "Chance",
    "Config",
    "Devices",
    "Event",
    "Game",
    "ImageSource",
    "ImageSpec",
    "Kind",
    "Model",
    "Players",
    "Rules",
    "Run",
    "build_discriminator",
    "build_generator",
    "config_for",
    "find_loss",
    "iterate",
    "load",
    "mnist",
    "override",
    "read_events",
    "sample_latents",
    "stream",
    "train",
    "training_latents",
    "update_average",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'cardigan' has no attribute {name!r}")
    from cardigan import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted(__all__)
