"""The public Python API: train, load, sample, and the building blocks that the tutorial uses.

The command line calls these functions.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from cardigan.config import Config
from cardigan.data.batches import Batches as Batches
from cardigan.data.mnist import load_mnist as load_mnist
from cardigan.data.quality.check import check_source
from cardigan.data.quality.findings import Findings as Findings
from cardigan.data.reader import Reader
from cardigan.data.source import ImageSource as ImageSource
from cardigan.data.source import ImageSpec as ImageSpec
from cardigan.errors import CardiganError as CardiganError
from cardigan.experiment.evaluation import evaluate_model
from cardigan.experiment.finished_run import Run as Run
from cardigan.experiment.progress_line import progress_callback
from cardigan.experiment.session import run_training
from cardigan.explore.views import SamplingOptions, walk_images
from cardigan.exports.export import ExportedFile as ExportedFile
from cardigan.exports.export import export as export
from cardigan.figures.animation import encode_animation
from cardigan.files.atomic import write_bytes
from cardigan.health.diagnosis import Diagnosis as Diagnosis
from cardigan.health.diagnosis import diagnose_path
from cardigan.inference.model import Model as Model
from cardigan.inference.model import from_pretrained as from_pretrained
from cardigan.inference.model import load as load
from cardigan.latents.sampling import sample_latents as sample_latents
from cardigan.latents.sampling import training_latents as training_latents
from cardigan.metrics.evaluate import NUM_SAMPLES, OnMetric
from cardigan.metrics.evaluate import evaluate as evaluate_sampler
from cardigan.metrics.features import FeatureExtractor
from cardigan.metrics.protocol import Report as Report
from cardigan.metrics.reference import Reference, Sampler
from cardigan.nets.table import build_discriminator as build_discriminator
from cardigan.nets.table import build_generator as build_generator
from cardigan.objective.losses import find_loss as find_loss
from cardigan.overrides import override as override
from cardigan.plugins import load_plugins
from cardigan.recipes import config_for as config_for
from cardigan.report.build import write_report as write_report_of
from cardigan.rng import stream as stream
from cardigan.run.directory import RunDirectory
from cardigan.run.journal import Event
from cardigan.run.journal import read_events as read_events
from cardigan.trackers.follow import DEFAULT_PROJECT
from cardigan.trackers.process import tracking
from cardigan.training.devices import Devices as Devices
from cardigan.training.ema import update_ema as update_ema
from cardigan.training.step_types import Networks as Networks
from cardigan.training.step_types import RandomDraws as RandomDraws
from cardigan.training.step_types import StepConfig as StepConfig
from cardigan.training.step_types import StepKind as StepKind
from cardigan.training.steps import train_step as train_step


def train(
    source: "str | Path | Reader | np.ndarray | torch.Tensor | Dataset[Any]" = "mnist",
    *,
    recipe: str | None = None,
    out: str | Path | None = None,
    images: int | None = None,
    minutes: float | None = None,
    size: int | tuple[int, int] | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    seed: int | None = None,
    resume: bool = False,
    overrides: dict[str, Any] | None = None,
    config: Config | None = None,
    on_event: Callable[[Event], None] | None = None,
    started_at: float | None = None,
    start_from: str | Path | None = None,
    accept_license: bool = False,
    verbose: bool | None = None,
    track: str | Sequence[str] = (),
    track_project: str = DEFAULT_PROJECT,
    track_files: bool = True,
    track_samples: bool = True,
) -> Run:
    """Train a GAN and return the finished run.

    The settings come from the recipe, or from `config`. The arguments change them, and then `overrides` does. Without
    `config`, settings that are not given are chosen for the images and this machine; the start event lists them.

    - `source`: a name (mnist, stacked-mnist), a path or a URL (docs/guides/data.md), an array or tensor of images
      [N, H, W] or [N, H, W, C], or a torch `Dataset`.
    - `recipe`: the name of a recipe (docs/recipes.md). Default: the one that suits the source.
    - `out`: the run directory. Default: `runs/<date>-<time>-<name>`, named after the source, or after the recipe for an
      embedded data set.
    - `images`, `minutes`: the budget. Training stops at whichever is reached first. Giving one removes the recipe's
      budget.
    - `size`: the side of the training images in pixels, or (height, width).
    - `batch_size`: the images per step.
    - `device`: cpu, cuda, cuda:1, mps or auto.
    - `seed`: the seed of all randomness, 0 <= seed < 2^63. Default: the recipe's, which is 0.
    - `resume`: continue an existing run with the same settings, bit for bit as if it had never stopped.
    - `overrides`: settings by dotted name, such as `{"batch_size": 128, "generator.width": 64}`.
    - `config`: all settings, instead of a recipe's.
    - `on_event`: is called with every journal event as it happens.
    - `start_from`: a trained model whose weights are the initial ones: a run, a checkpoint, a generator.safetensors, a
      model folder, `hf:user/name`, or another program's generator. Networks, rates and image size are its own unless
      they are given; another size, other channels, classes or latents are adapted (docs/guides/start-from.md).
    - `accept_license`: needed for a model whose license forbids derivatives.
    - `verbose`: show the progress: one line in a terminal, a live line and the sample sheet in a notebook. Default:
      where there is either.
    - `track`: experiment trackers that get the run while it trains: tensorboard, wandb, mlflow, trackio
      (docs/guides/track.md).
    - `track_project`: the project in them.
    - `track_files`: send the best generator and the report too, when the run has stopped.
    - `track_samples`: send the sample sheets too, which show real images.
    - `started_at`: the `time.monotonic()` that a budget of minutes counts from. Default: now.

    Raises CardiganError for anything that cannot be trained. Nothing is written in that case, and existing files are
    never overwritten.

    Examples:
        >>> import cardigan
        >>> small = {"generator.width": 4, "discriminator.width": 4}
        >>> run = cardigan.train("mnist", images=64, size=16, batch_size=16, overrides=small)
        >>> run.images_seen, run.stopped_by
        (64, 'images')
        >>> run.sample(4).shape
        (4, 16, 16, 1)
    """
    settings: dict[str, Any] = {"batch_size": batch_size, "device": device}
    if size is not None:
        settings["data.height"], settings["data.width"] = (size, size) if isinstance(size, int) else size
    settings = {name: value for name, value in settings.items() if value is not None}
    given_twice = sorted(settings.keys() & (overrides or {}).keys())
    if given_twice:
        raise CardiganError(f"{given_twice[0]} is given as an argument and in overrides: leave one out.")
    callbacks = [each for each in (on_event, progress_callback(verbose)) if each is not None]

    def call_all(event: Event) -> None:
        for callback in callbacks:
            callback(event)

    trackers = [track] if isinstance(track, str) else list(track)
    with tracking(trackers, track_project, track_files, track_samples, call_all) as forward:
        return run_training(
            source,
            recipe,
            out,
            images,
            minutes,
            seed,
            resume,
            {**settings, **(overrides or {})},
            config,
            forward,
            started_at,
            start_from,
            accept_license,
        )


def evaluate(
    model: str | Path | Run | Model | Sampler,
    reference: str | Reference | None = None,
    extractor: str | FeatureExtractor | None = None,
    num_samples: int = NUM_SAMPLES,
    metrics: Iterable[str] | None = None,
    baseline: bool = True,
    *,
    seed: int = 0,
    truncation: float = 1.0,
    weights: str | None = None,
    device: str = "auto",
    on_metric: OnMetric | None = None,
) -> Report:
    """Compute the metrics of a model, each with its standard error, its real baseline and the protocol.

    - `model`: what `load` reads, a finished run, a model, or a `Sampler` of images with a `Reference`
      (docs/guides/evaluation.md).
    - `reference`: the source of the real images, for a model without a recorded one.
    - `extractor`, `weights`: the feature extractor by name, and its file of weights. Default: the one that suits the
      images.
    - `num_samples`: how many images are generated and compared.
    - `metrics`: names such as "frechet" and "prdc". Default: all that the images allow.
    - `baseline`: also compute what as many real images score.
    - `seed`, `truncation`: of the generated images, as in `Model.sample`.
    - `device`: cpu, cuda, cuda:1, mps or auto.
    - `on_metric`: is called with each metric's name, number and their count.

    Raises CardiganError for models, metrics or extractors that cannot be read or computed.

    Examples:
        >>> import cardigan
        >>> report = cardigan.evaluate("runs/first", metrics=["frechet"], num_samples=100, baseline=False)
        >>> report.metrics["fd_digits"].value > 0
        True
        >>> report.metrics["fd_digits"].better
        'lower'
    """
    if isinstance(model, Sampler):
        if not isinstance(reference, Reference) or isinstance(extractor, str):
            raise CardiganError("A Sampler is evaluated against a Reference, with a FeatureExtractor or none.")
        return evaluate_sampler(model, reference, extractor, num_samples, metrics, baseline, on_metric)
    if isinstance(reference, Reference) or isinstance(extractor, FeatureExtractor):
        raise CardiganError("A model is evaluated against a source and with an extractor by their names.")
    report, _, _ = evaluate_model(
        model.snapshot if isinstance(model, Model) else Path(model.path if isinstance(model, Run) else model),
        reference_source=reference,
        metrics=None if metrics is None else list(metrics),
        num_samples=num_samples,
        seed=seed,
        truncation=truncation,
        extractor=extractor,
        weights=weights,
        baseline=baseline,
        device=device,
        on_metric=on_metric,
    )
    return report


def compare(
    *models: str | Path | Run, num_samples: int = NUM_SAMPLES, metrics: Iterable[str] | None = None, **protocol: Any
) -> dict[str, Report]:
    """Return the report of each model, by its path, under one protocol.

    `models` are two or more runs or paths that `load` reads. `num_samples`, `metrics` and `protocol` are arguments of
    `evaluate`.

    Raises CardiganError for fewer than two models, and for models that are evaluated on different real images.

    Examples:
        >>> import cardigan
        >>> reports = cardigan.compare(
        ...     "runs/first", "runs/second", metrics=["frechet"], num_samples=100, baseline=False
        ... )
        >>> list(reports)
        ['runs/first', 'runs/second']
    """
    if len(models) < MIN_COMPARED:
        raise CardiganError("One model cannot be compared: give two or more, or use evaluate.")
    names = None if metrics is None else list(metrics)
    reports = {
        str(each.path if isinstance(each, Run) else each): evaluate(
            each, num_samples=num_samples, metrics=names, **protocol
        )
        for each in models
    }
    if len({report.protocol.reference_sha256 for report in reports.values()}) > 1:
        raise CardiganError("These models are evaluated on different real images: compare models of the same data.")
    return reports


def check(source: str | Path | Reader, labels: str = "", num_workers: int | None = None) -> Findings:
    """Return what is wrong with a source of images: contents, unreadable files, duplicates, classes, as fields.

    `source` is a path, a URL or a name as in `train`, or a `Reader`. `labels` says where its classes are, as
    `data.labels` does: folders, the name of a column, or a file. `num_workers` are the processes that decode. Default:
    one per core; 0 decodes in this process.

    Raises CardiganError if the source cannot be opened.

    Examples:
        >>> import cardigan
        >>> findings = cardigan.check("photos", num_workers=0)
        >>> findings.num_images, findings.trainable
        (12, True)
        >>> [entry.name for group in findings.duplicates for entry in group.members]
        ['00.png', '11.png']
    """
    return check_source(str(source) if isinstance(source, Path) else source, labels, num_workers)


def diagnose(run: str | Path | Run) -> Diagnosis:
    """Return what went wrong in a training, where to stop it and why, from its journal or a CSV table of its losses.

    `run` is a run, its directory, a journal.jsonl, or a CSV table with the columns step, d_loss and g_loss. Of a table
    of several runs, the first one is diagnosed.

    Raises CardiganError for input that cannot be read.

    Examples:
        >>> import cardigan
        >>> cardigan.diagnose("runs/first").diagnosis
        'too early'
    """
    return next(iter(diagnose_path(Path(run.path if isinstance(run, Run) else run)).values()))


def write_report(run: str | Path | Run, on_metric: OnMetric | None = None) -> Path:
    """Evaluate a run, write its `report.html`, and return the path of the page. Takes a minute or two.

    `run` is a run or its directory. `on_metric` is called with each metric's name, number and their count.

    Raises CardiganError if the folder is not a run.

    Examples:
        >>> import cardigan
        >>> cardigan.write_report("runs/first").name
        'report.html'
    """
    return write_report_of(RunDirectory(Path(run.path if isinstance(run, Run) else run)), on_metric=on_metric)


def walk(
    model: str | Path | Run | Model,
    seeds: Sequence[int] = (0, 1, 2, 3),
    num_frames: int = 96,
    labels: str | int | None = None,
    truncation: float = 1.0,
    loop: bool = False,
    out: str | Path | None = None,
    fps: float = 24.0,
) -> np.ndarray:
    """Return the frames of a walk from seed to seed, uint8 [num_frames, height, width, channels].

    - `model`: a model, a run, or a path that `load` reads.
    - `seeds`: at least two; the walk visits their images in this order. With `loop` it returns to the first one.
    - `num_frames`: the frames of the whole walk.
    - `labels`: the class of all frames, by number or name. Default: each seed has its own.
    - `truncation`: from 1 (as trained) to 0 (the average image).
    - `out`: a file for the film, .webp, .gif or .mp4, with `fps` frames a second. Default: no file.

    Raises CardiganError for fewer than two seeds or an existing file.

    Examples:
        >>> import cardigan
        >>> cardigan.walk("runs/first", seeds=[3, 7, 1], num_frames=6, out="walk.webp").shape
        (6, 16, 16, 1)
    """
    path = None if out is None else Path(out)
    if path is not None and path.exists():
        raise CardiganError(f"{path} exists already: choose another name.")
    snapshot = model.snapshot if isinstance(model, Model) else load(model).snapshot
    options = SamplingOptions("" if labels is None else str(labels), truncation, {})
    frames = walk_images(snapshot, list(seeds), num_frames, None, loop, options, None)
    if path is not None:
        write_bytes(path, encode_animation(frames, fps, path.suffix[1:]))
    return frames.permute(0, 2, 3, 1).contiguous().numpy()


MIN_COMPARED = 2
load_plugins()  # last: a plug-in may use anything that is imported above
