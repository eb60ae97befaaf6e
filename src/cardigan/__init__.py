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
        export,
        find_loss,
        from_pretrained,
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
    from cardigan.estimator import GAN, NotFittedError

__all__ = [
    "GAN",
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
    "NotFittedError",
    "Players",
    "Rules",
    "Run",
    "build_discriminator",
    "build_generator",
    "config_for",
    "export",
    "find_loss",
    "from_pretrained",
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
    from cardigan import api, estimator

    return getattr(estimator if name in {"GAN", "NotFittedError"} else api, name)


def __dir__() -> list[str]:
    return sorted(__all__)
