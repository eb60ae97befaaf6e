"""The public Python API: train, load, sample, and the building blocks that the tutorial uses.

The command line calls these functions.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from cardigan.config import Config
from cardigan.data.batches import Batches as Batches
from cardigan.data.mnist import load_mnist as load_mnist
from cardigan.data.reader import Reader
from cardigan.data.source import ImageSource as ImageSource
from cardigan.data.source import ImageSpec as ImageSpec
from cardigan.errors import CardiganError as CardiganError
from cardigan.experiment.session import Run as Run
from cardigan.experiment.session import run_training
from cardigan.exports.export import ExportedFile as ExportedFile
from cardigan.exports.export import export as export
from cardigan.inference.model import Model as Model
from cardigan.inference.model import from_pretrained as from_pretrained
from cardigan.inference.model import load as load
from cardigan.latents.sampling import sample_latents as sample_latents
from cardigan.latents.sampling import training_latents as training_latents
from cardigan.metrics.evaluate import evaluate as evaluate
from cardigan.nets.table import build_discriminator as build_discriminator
from cardigan.nets.table import build_generator as build_generator
from cardigan.objective.losses import find_loss as find_loss
from cardigan.overrides import override as override
from cardigan.plugins import load_plugins
from cardigan.recipes import config_for as config_for
from cardigan.rng import stream as stream
from cardigan.run.journal import Event
from cardigan.run.journal import read_events as read_events
from cardigan.training.devices import Devices as Devices
from cardigan.training.ema import update_ema as update_ema
from cardigan.training.steps import Networks as Networks
from cardigan.training.steps import RandomDraws as RandomDraws
from cardigan.training.steps import StepConfig as StepConfig
from cardigan.training.steps import StepKind as StepKind
from cardigan.training.steps import train_step as train_step


def train(
    source: "str | Path | Reader | np.ndarray | torch.Tensor | Dataset[Any]" = "mnist",
    *,
    recipe: str | None = None,
    out: str | Path | None = None,
    images: int | None = None,
    minutes: float | None = None,
    seed: int | None = None,
    resume: bool = False,
    overrides: dict[str, Any] | None = None,
    config: Config | None = None,
    on_event: Callable[[Event], None] | None = None,
    started_at: float | None = None,
    start_from: str | Path | None = None,
    accept_license: bool = False,
) -> Run:
    """Train a GAN and return the finished run.

    `source` is a name (mnist, stacked-mnist), a path or a URL (docs/guides/data.md), an array or tensor of images
    [N, H, W] or [N, H, W, C], or a torch `Dataset`.
    The settings come from the recipe, or from `config`. The arguments change them, and then `overrides` does, a dict of
    dotted names such as `{"batch_size": 128, "generator.width": 64}`. Without `config`, settings that are not given are
    chosen for the images and this machine; the start event lists them.
    `images` and `minutes` are the budget. Training stops at whichever is reached first. Giving one removes the
    recipe's budget.
    `out` is the run directory. Default: `runs/<date>-<time>-<name>`, named after the source, or after the recipe for an
    embedded data set.
    With `resume` an existing run with the same settings continues, bit for bit as if it had never stopped.
    `on_event` is called with every journal event as it happens.
    With `start_from` the weights are those of a trained model instead of initial ones: a run, a checkpoint, a
    generator.safetensors, a model folder, `hf:user/name`, or another program's generator. Networks, rates and image
    size are its own unless they are given; another size, other channels, classes or latents are adapted
    (docs/guides/start-from.md). `accept_license` is needed for a model whose license forbids derivatives.
    `started_at` is the `time.monotonic()` that a budget of minutes counts from. Default: now.

    Raises CardiganError for anything that cannot be trained. Nothing is written in that case, and existing files are
    never overwritten.
    """
    return run_training(
        source,
        recipe,
        out,
        images,
        minutes,
        seed,
        resume,
        overrides or {},
        config,
        on_event or _no_callback,
        started_at,
        start_from,
        accept_license,
    )


def _no_callback(_: Event) -> None:
    """Ignore the event."""


load_plugins()  # last: a plug-in may use anything that is imported above
