"""Train, evaluate, explore and export image GANs.

    import cardigan

    run = cardigan.train("photos/", minutes=30)   # or "mnist": digits in two minutes on a CPU
    run.sample(16)                                # uint8 [16, height, width, channels]
    run.report()                                  # report.html: samples, curves, metrics
    model = cardigan.load("runs/first")           # a run, a checkpoint, a file, a starter, hf:user/name
    model.sample(16, seed=0)

`check` inspects a folder of images, `evaluate` and `compare` compute metrics, `diagnose` says what went wrong, `walk`
makes films, `export` writes ONNX, a web page and more, `GAN` is a scikit-learn estimator. The names below them are the
parts that a training consists of (docs/guides/extend.md).

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
        check,
        compare,
        config_for,
        diagnose,
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
        walk,
        write_report,
    )
    from cardigan.experiment.finished_run import Run
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
    "check",
    "compare",
    "config_for",
    "diagnose",
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
    "walk",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'cardigan' has no attribute {name!r}")
    from cardigan import api
    from cardigan.sklearn import gan

    return getattr(gan if name in {"GAN", "NotFittedError"} else api, name)


def __dir__() -> list[str]:
    return sorted(__all__)
