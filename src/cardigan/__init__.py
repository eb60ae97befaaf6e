"""Cardigan trains, evaluates and exports image GANs: `train`, `load`, and the building blocks behind them.

Names are imported on first use, so that `cardigan --help` does not import torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cardigan.api import (
        Batches,
        CardiganError,
        Config,
        Devices,
        Event,
        ImageSource,
        ImageSpec,
        Model,
        Networks,
        RandomDraws,
        StepConfig,
        StepKind,
        build_discriminator,
        build_generator,
        config_for,
        evaluate,
        export,
        find_loss,
        from_pretrained,
        load,
        load_mnist,
        override,
        read_events,
        sample_latents,
        stream,
        train,
        train_step,
        training_latents,
        update_ema,
    )
    from cardigan.experiment.session import Run
    from cardigan.sklearn.gan import GAN, NotFittedError

__all__ = [
    "GAN",
    "Batches",
    "CardiganError",
    "Config",
    "Devices",
    "Event",
    "ImageSource",
    "ImageSpec",
    "Model",
    "Networks",
    "NotFittedError",
    "RandomDraws",
    "Run",
    "StepConfig",
    "StepKind",
    "build_discriminator",
    "build_generator",
    "config_for",
    "evaluate",
    "export",
    "find_loss",
    "from_pretrained",
    "load",
    "load_mnist",
    "override",
    "read_events",
    "sample_latents",
    "stream",
    "train",
    "train_step",
    "training_latents",
    "update_ema",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'cardigan' has no attribute {name!r}")
    from cardigan import api
    from cardigan.sklearn import gan

    return getattr(gan if name in {"GAN", "NotFittedError"} else api, name)


def __dir__() -> list[str]:
    return sorted(__all__)
