"""Builds the objects that a Config describes.

Does not train, write or print.
"""

import copy
import itertools
import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any

import torch

from cardigan.config import Config
from cardigan.data.batches import Batches
from cardigan.data.datasets import NUM_PREVIEW_IMAGES, Datasets, open_datasets
from cardigan.data.prefetch import BatchStream, Prefetcher
from cardigan.data.source import ImageSource, ImageSpec, image_spec
from cardigan.errors import CardiganError
from cardigan.figures.grid import png_bytes, side_by_side
from cardigan.files.atomic import write_bytes
from cardigan.hardware.memory import free_device_bytes, release_memory
from cardigan.hardware.metal import is_metal
from cardigan.hardware.out_of_memory import is_out_of_memory
from cardigan.latents.sampling import find_latent
from cardigan.metrics.quick import quick_scorer
from cardigan.models.sampling import sample_keys, sample_pixels
from cardigan.models.snapshot import Snapshot
from cardigan.nets import interface as nets
from cardigan.nets.activations import feature_layers
from cardigan.nets.freezing import freeze_stages
from cardigan.nets.table import build_networks, has_frozen_features
from cardigan.objective.correspondence import MIN_IMAGES
from cardigan.objective.losses import find_loss
from cardigan.objective.penalties import find_penalty
from cardigan.pixels import encode
from cardigan.report.build import write_report
from cardigan.rng import stream
from cardigan.run.directory import RunDirectory
from cardigan.shapes import Labels, Pixels
from cardigan.training.ada import build_augmentation
from cardigan.training.cuda_graph import WARMUP_STEPS, cuda_graph_step
from cardigan.training.devices import Devices
from cardigan.training.distributed import world_size
from cardigan.training.inputs import step_inputs
from cardigan.training.loop import make_step
from cardigan.training.optimizers import build_optimizer, find_optimizer
from cardigan.training.recorder import Callbacks, LogitsFn
from cardigan.training.schedule import find_schedule, step_kind, step_kinds
from cardigan.training.state import TrainState
from cardigan.training.step_types import Networks, StepConfig

MAX_GPU_MEMORY_FRACTION = 0.4
"""Fraction of a GPU's free memory that the images may take. Larger data sets are copied per step."""
MIN_IMAGES_FOR_FEATURES = 16
"""Images that a discriminator on pretrained features needs at least."""
MAX_SHEET_SAMPLES, SHEET_MICROBATCHES = 64, 4
"""A sheet of samples shows the first many images, but at most as many microbatches: without gradients, so many fit into
the memory of a training step."""
THROUGHPUT_CYCLES = 16
"""Cycles of all step kinds over which a GPU's throughput is measured. One cycle takes a few milliseconds."""
NUM_TIMED_SAMPLES = 32
"""Samples that are timed to estimate how long an evaluation takes."""


def build_source(config: Config) -> ImageSource:
    """Return the training images; for a stream, a sample of them."""
    return open_datasets(config.data).train


def build_batches(config: Config, datasets: Datasets, devices: Devices) -> tuple[Batches, Prefetcher | None]:
    """Return the batches, and a prefetcher if the images do not fit on the device.

    Without a prefetcher the batches hold all images on the device. With one they hold a few preview images, and the
    prefetcher delivers the training images step by step.
    """
    source, local_slice = datasets.train, devices.process_group.local_slice(config.batch_size)
    if datasets.make_stream is not None:
        prefetcher = Prefetcher(
            datasets.make_stream(config.seed, config.batch_size, local_slice), config.batch_size, config.conditional
        )
    elif not _fits_on_device(source, devices.device):
        prefetcher = Prefetcher(_host_batches(source, config, local_slice), config.batch_size)
        source = replace(source, pixels=source.pixels[:NUM_PREVIEW_IMAGES], labels=source.labels[:NUM_PREVIEW_IMAGES])
    else:
        prefetcher = None
    return Batches(source.to(devices.device), config.data, config.seed), prefetcher


def _fits_on_device(source: ImageSource, device: torch.device) -> bool:
    """Return whether all images fit on the device. On a CPU they always do."""
    if device.type == "cpu":
        return True
    indexable = not is_metal(device) or source.pixels.numel() < 2**31
    return indexable and source.pixels.nbytes <= MAX_GPU_MEMORY_FRACTION * free_device_bytes(device)


def _host_batches(source: ImageSource, config: Config, local_slice: slice) -> BatchStream:
    order = Batches(source, config.data, config.seed).sampler

    def stream(images_seen: int) -> Generator[tuple[Pixels, Labels], None, None]:
        for step in itertools.count():
            indices = order.indices_at(images_seen + step * config.batch_size, config.batch_size)[local_slice]
            yield source.pixels_at(indices), source.labels_at(indices)

    return stream


def build_spec(config: Config, source: ImageSource, notes: Sequence[str] = ()) -> ImageSpec:
    """Return the spec of the training images. `notes` may say why a source has no classes."""
    num_channels = source.pixels.shape[1]
    if num_channels not in {1, config.data.channels}:
        raise CardiganError(
            f"data.channels is {config.data.channels}, but the images of {source.name!r} have {num_channels}: "
            f"set data.channels to {num_channels}."
        )
    if config.conditional and not source.num_classes:
        reasons = "".join(f" ({note})" for note in notes if note.startswith("classes:"))
        raise CardiganError(
            f"conditional is on, but the images of {source.name!r} have no classes{reasons}: turn it off "
            "(--no-conditional), or say where the labels are with data.labels (folders, a file, a column)."
        )
    if has_frozen_features(config.discriminator) and len(source) < MIN_IMAGES_FOR_FEATURES:
        raise CardiganError(
            f"{source.name} has {len(source)} images to train on: {config.discriminator.network}, a discriminator on "
            f"pretrained features, needs at least {MIN_IMAGES_FOR_FEATURES}, since it soon memorizes fewer. Add "
            "images, or use --discriminator.network dcgan."
        )
    if not config.conditional:
        return image_spec(config.data, 0)
    counts = torch.bincount(source.labels.cpu(), minlength=source.num_classes).tolist() if config.data.clusters else ()
    return image_spec(config.data, source.num_classes, source.class_names, tuple(counts))


def build_state(
    config: Config,
    spec: ImageSpec,
    devices: Devices,
    start_networks: Callable[[nets.Generator, nets.Discriminator], None] | None = None,
) -> TrainState:
    """Return the state before the first step. The weights depend only on the seed; global RNG state is not touched.

    `start_networks` may change the initial weights in place.
    """
    generator, discriminator = build_trainable_networks(config, spec)
    if start_networks is not None:
        start_networks(generator, discriminator)
    generator, discriminator = devices.prepare(generator).train(), devices.prepare(discriminator).train()
    ema_generator = copy.deepcopy(generator).eval().requires_grad_(False)
    has_correspondence = config.objective.correspondence > 0
    start_generator = copy.deepcopy(generator).requires_grad_(False) if has_correspondence else None
    networks = Networks(
        generator,
        discriminator,
        build_optimizer(generator, config.generator_optimizer, devices),
        build_optimizer(discriminator, config.discriminator_optimizer, devices),
        build_augmentation(config.augment, spec.channels, devices.device),
        start_generator,
    )
    return TrainState(networks, ema_generator, images_seen=0)


def build_trainable_networks(config: Config, spec: ImageSpec) -> tuple[nets.Generator, nets.Discriminator]:
    """Return both networks with their frozen stages, if there are any.

    Raises CardiganError for more frozen stages than a network has, and for frozen weights that nothing has trained.
    """
    generator, discriminator = build_networks(config, spec)
    for name, network in (("generator", generator), ("discriminator", discriminator)):
        count = getattr(config, name).frozen_stages
        if count and not config.start_from:
            raise CardiganError(
                f"{name}.frozen_stages is {count}, but training starts from initial weights, which would never learn: "
                "set it to 0, or start from a trained model with --from."
            )
        freeze_stages(network, count, name)
    if config.objective.correspondence:
        _check_correspondence(config, generator)
    return generator, discriminator


def _check_correspondence(config: Config, generator: nets.Generator) -> None:
    """Raise CardiganError if there is nothing that similarities could be compared with, or between."""
    weight, size = config.objective.correspondence, config.batch_size // config.gradient_accumulation
    if not config.start_from:
        raise CardiganError(
            f"objective.correspondence is {weight:g}, but training starts from initial weights, which have no variety "
            "to keep: set it to 0, or start from a trained model with --from."
        )
    if size < MIN_IMAGES:
        raise CardiganError(
            f"objective.correspondence is {weight:g}, which compares at least {MIN_IMAGES} images, but {size} are "
            "computed at a time: make batch_size larger, or gradient_accumulation smaller."
        )
    feature_layers(generator)


def build_step_config(config: Config, devices: Devices) -> StepConfig:
    """Return the configuration of the training steps.

    Raises CardiganError for an unknown loss, penalty or latent distribution, for a penalty that is meaningless under
    D's normalization, and for a loss without a minimum if nothing bounds D's gradient.
    """
    loss = find_loss(config.objective.loss)
    find_latent(config.latent.distribution)
    discriminator = config.discriminator
    for name, weight in config.objective.penalties.items():
        if find_penalty(name).forbids_batch_norm and discriminator.normalization != "none":
            raise CardiganError(
                f"objective.penalties.{name} is {weight} and discriminator.normalization "
                f"{discriminator.normalization!r}, "
                "which makes each logit depend on the whole batch, so the penalty is meaningless "
                "(arXiv:1704.00028, section 4): set discriminator.normalization to 'none'."
            )
        if "noise" in find_penalty(name).random_inputs and has_frozen_features(discriminator):
            raise CardiganError(
                f"objective.penalties.{name} adds noise to images, but {discriminator.network} takes penalties with "
                "respect to its frozen features: set r1 and r2 instead."
            )
    # Batch normalization and attention have unbounded learned scales.
    is_lipschitz = (
        discriminator.spectral_norm
        and discriminator.normalization == "none"
        and not discriminator.options.get("attention_resolution")
    )
    if not (loss.bounded_below or config.objective.penalties or is_lipschitz):
        raise CardiganError(
            f"objective.loss is {config.objective.loss!r} and nothing bounds D's gradient, so the loss has no minimum: "
            "set objective.penalties.wgan_gp (the paper's is 10), another penalty, or discriminator.spectral_norm, "
            "with discriminator.normalization 'none' and no attention."
        )
    return StepConfig(loss, config.objective, config.conditional, devices, config.gradient_accumulation)


def check_buildable(config: Config, devices: Devices) -> None:
    """Raise CardiganError if the config cannot be built. Needs no images and no memory for weights."""
    build_step_config(config, devices)
    for optimizer_config in (config.generator_optimizer, config.discriminator_optimizer):
        find_optimizer(optimizer_config.name)
        find_schedule(optimizer_config.schedule)
    build_augmentation(config.augment, config.data.channels, torch.device("cpu"))
    with torch.device("meta"):
        build_trainable_networks(config, image_spec(config.data, 2 if config.conditional else 0))


def build_callbacks(
    config: Config, batches: Batches, run: RunDirectory, holdout: ImageSource | None = None
) -> Callbacks:
    """Return the callbacks that write sample grids, score checkpoints and write the report."""
    microbatch_size = config.batch_size // config.gradient_accumulation
    count = min(MAX_SHEET_SAMPLES, SHEET_MICROBATCHES * microbatch_size, len(batches.source))
    first = batches.batch_at(0, count)
    real = encode(first.images).cpu()
    labels = first.labels.cpu() if config.conditional else None

    def write_samples(snapshot: Snapshot, logits_fn: LogitsFn) -> dict[str, Any]:
        fake = sample_pixels(snapshot, sample_keys(count, config.seed), labels)
        write_bytes(run.sample_path(snapshot.images_seen), png_bytes(side_by_side(fake, real)))
        return {"num_samples": count, "fake_logits": logits_fn(fake, labels), "real_logits": logits_fn(real, labels)}

    scorer = quick_scorer(batches.source, config.data, holdout)

    def evaluate(snapshot: Snapshot) -> dict[str, float]:
        return scorer.score(sample_pixels(snapshot, sample_keys(scorer.num_samples, config.seed)))

    def evaluation_seconds(snapshot: Snapshot) -> float:
        seconds = 0.0
        for _ in range(2):  # the first time loads weights
            started_at = time.monotonic()
            scorer.features(sample_pixels(snapshot, sample_keys(NUM_TIMED_SAMPLES, config.seed)))
            seconds = time.monotonic() - started_at
        return seconds * scorer.num_samples / NUM_TIMED_SAMPLES

    def write_final_report(snapshot: Snapshot, evaluated: bool) -> None:
        write_report(run, snapshot, full=False, evaluated=evaluated)

    return Callbacks(write_samples, evaluate, evaluation_seconds, write_final_report)


def check_all_labeled(config: Config, datasets: Datasets) -> None:
    """Raise CardiganError if training is conditional and some images have no class."""
    if config.conditional and datasets.num_unlabeled:
        raise CardiganError(
            f"conditional is on, but {datasets.num_unlabeled:,} of the images of {config.data.source} have no class: "
            "add the missing labels, remove those images, or leave conditional out."
        )


def measure_throughput(config: Config, devices: Devices) -> float:
    """Return the training throughput of this config on this device, in images per second, measured on noise.

    Steps run as in training: as CUDA graphs for one process on a GPU, with one synchronization at the end.
    """
    networks = {name: replace(getattr(config, name), conditioning="auto") for name in ("generator", "discriminator")}
    data = replace(config.data, clusters=0)
    config = replace(config, data=data, conditional=False, gradient_accumulation=1, **networks)
    noise = torch.randint(
        0,
        256,
        (config.batch_size, data.channels, data.height, data.width),
        dtype=torch.uint8,
        generator=stream(0, "pace", 0),
    )
    source = ImageSource("noise", noise, torch.zeros(config.batch_size, dtype=torch.long), 0).to(devices.device)
    state, step_config, batches = (
        build_state(config, image_spec(data, 0), devices),
        build_step_config(config, devices),
        Batches(source, data, 0),
    )
    train_step = cuda_graph_step(
        make_step(state, batches, step_config), devices.device, world_size(), step_kinds(config)
    )

    def train(steps: range) -> float:
        started_at = time.monotonic()
        positions = [step * config.batch_size for step in steps]
        results = [
            train_step(step_inputs(config, batches, images_seen, devices), step_kind(config, images_seen))
            for images_seen in positions
        ]
        results[-1].tolist()  # synchronizes with a GPU
        return time.monotonic() - started_at

    cycle = math.lcm(config.objective.penalty_interval, config.n_critic)
    warmup_steps = cycle * (WARMUP_STEPS + 1) if devices.is_async else 2
    train(range(warmup_steps))
    first = math.ceil(warmup_steps / cycle) * cycle
    timed_steps = range(first, first + cycle * (THROUGHPUT_CYCLES if devices.is_async else 1))
    return config.batch_size * len(timed_steps) / train(timed_steps)


def measure_throughput_within_memory(config: Config, devices: Devices) -> float:
    """Return `measure_throughput`, with smaller batches while memory runs out; 1.0 if one image does not fit."""
    batch_size = config.batch_size
    while batch_size:
        try:
            return measure_throughput(replace(config, batch_size=batch_size, gradient_accumulation=1, pac=1), devices)
        except CardiganError:
            if batch_size == config.batch_size:
                raise  # not about memory; a smaller batch size may only fail to divide
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        batch_size //= 2
        release_memory()
    return 1.0


def halve_microbatch(config: Config) -> Config | None:
    """Return the config with half the microbatch size (gradient accumulation), or None if that is impossible."""
    try:
        return replace(config, gradient_accumulation=2 * config.gradient_accumulation)
    except CardiganError:
        return None
