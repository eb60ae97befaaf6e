"""From a Config to the objects it names: the one place where parts are put together.

Does not train, write or print.
"""

import copy
import itertools
import math
import time
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import torch
from torch.nn import Module

from cardigan.config import AdamConfig, Config
from cardigan.data.batches import Batches
from cardigan.data.datasets import NUM_PREVIEW_IMAGES, Datasets, open_datasets
from cardigan.data.prefetch import BatchStream, Prefetcher
from cardigan.data.source import ImageSource, ImageSpec, image_spec
from cardigan.errors import CardiganError
from cardigan.figures.grid import png_bytes, side_by_side
from cardigan.files.atomic import write_bytes
from cardigan.hardware.memory import free_device_bytes, is_out_of_memory, release_memory
from cardigan.hardware.metal import is_metal
from cardigan.metrics.quick import quick_scorer
from cardigan.models.sampling import sample_keys, sample_pixels
from cardigan.models.snapshot import Snapshot
from cardigan.nets.table import build_networks
from cardigan.objective.losses import find_loss
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
from cardigan.training.recorder import Callbacks, LogitsFn
from cardigan.training.schedule import step_kind, step_kinds
from cardigan.training.state import TrainState
from cardigan.training.steps import Networks, StepConfig

MAX_GPU_MEMORY_FRACTION = 0.4
"""Of a GPU's free memory, that pictures may take; more stay where they are and travel step by step."""

THROUGHPUT_CYCLES = 16
"""Rounds of all kinds of step that a GPU's pace is measured over: one round takes it a few milliseconds."""


def build_source(config: Config) -> ImageSource:
    """Return the pictures that are trained on; of a stream, a sample."""
    return open_datasets(config.data).train


def build_batches(config: Config, datasets: Datasets, devices: Devices) -> tuple[Batches, Prefetcher | None]:
    """Return the pictures on the device, and nothing else if all of them fit there.

    Otherwise as many as are looked at between steps, and what brings those that are trained on, step by step.
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
    """Return whether all images can lie on the device; on a CPU they do already."""
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


def build_spec(config: Config, source: ImageSource) -> ImageSpec:
    num_channels = source.pixels.shape[1]
    if num_channels not in {1, config.data.channels}:
        raise CardiganError(
            f"data.channels is {config.data.channels}, but the pictures of {source.name!r} have {num_channels}: set data.channels to {num_channels}."
        )
    if config.conditional and not source.num_classes:
        raise CardiganError(
            f"conditional is on, but the pictures of {source.name!r} have no classes: turn it off (--no-conditional), or say where "
            "they are with data.labels (folders, a file, a column)."
        )
    return (
        image_spec(config.data, source.num_classes, source.class_names)
        if config.conditional
        else image_spec(config.data, 0)
    )


def build_state(config: Config, spec: ImageSpec, devices: Devices) -> TrainState:
    """Return the state before the first step; its weights are a function of the seed, and global randomness is left untouched."""
    generator, discriminator = build_networks(config, spec)
    generator, discriminator = devices.prepare(generator).train(), devices.prepare(discriminator).train()
    ema_generator = copy.deepcopy(generator).eval().requires_grad_(False)
    networks = Networks(
        generator,
        discriminator,
        _build_adam(generator, config.generator_optimizer, devices),
        _build_adam(discriminator, config.discriminator_optimizer, devices),
    )
    return TrainState(
        networks,
        ema_generator,
        images_seen=0,
        augmentation=build_augmentation(config.augment, spec.channels, devices.device),
    )


def build_step_config(config: Config, devices: Devices) -> StepConfig:
    """Raises CardiganError for an unknown loss, or one without a minimum and nothing that gives it one."""
    loss = find_loss(config.objective.loss)
    discriminator = config.discriminator
    is_lipschitz = (
        discriminator.spectral_norm and discriminator.normalization == "none" and not discriminator.attention_resolution
    )  # both have scales that are learned freely
    if not (loss.bounded_below or config.objective.has_penalty or is_lipschitz):
        raise CardiganError(
            f"objective.loss is {config.objective.loss!r} and nothing bounds D's slope, so its loss has no end: set objective.wgan_gp "
            "(the paper's is 10), another penalty, or discriminator.spectral_norm, with discriminator.normalization 'none' and attention_resolution 0."
        )
    return StepConfig(loss, config.objective, config.conditional, devices, config.gradient_accumulation)


def check_buildable(config: Config, devices: Devices) -> None:
    """Raise CardiganError for parts that cannot be built or do not fit together; needs no pictures, and no memory for weights."""
    build_step_config(config, devices)
    build_augmentation(config.augment, config.data.channels, torch.device("cpu"))
    with torch.device("meta"):
        build_networks(config, image_spec(config.data, 2 if config.conditional else 0))


def build_callbacks(
    config: Config, batches: Batches, run: RunDirectory, holdout: ImageSource | None = None
) -> Callbacks:
    """Return what draws sample grids into the run and what judges its checkpoints."""
    count = min(config.batch_size, 64, len(batches.source))
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

    def write_final_report(snapshot: Snapshot) -> None:
        write_report(run, snapshot, full=False)

    return Callbacks(write_samples, evaluate, write_final_report)


def check_all_labeled(config: Config, datasets: Datasets) -> None:
    """Raise CardiganError if pictures have no class and the training is conditional."""
    if config.conditional and datasets.num_unlabeled:
        raise CardiganError(
            f"conditional is on, but {datasets.num_unlabeled:,} of the pictures of {config.data.source} have no class: "
            "add the missing labels, remove those pictures, or leave conditional out."
        )


def measure_throughput(config: Config, devices: Devices) -> float:
    """Return how many images a second a training of these settings sees on this device; trains a little on noise.

    Steps run as they will in the training: recorded where one process has a GPU, whose queue is waited for once, at the end.
    """
    networks = {name: replace(getattr(config, name), conditioning="auto") for name in ("generator", "discriminator")}
    config = replace(config, conditional=False, gradient_accumulation=1, **networks)
    data = config.data
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
        began = time.monotonic()
        seen = [step * config.batch_size for step in steps]
        measured = [train_step(step_inputs(config, batches, at, devices), step_kind(config, at)) for at in seen]
        measured[-1].tolist()  # waits for a GPU
        return time.monotonic() - began

    cycle = math.lcm(config.objective.penalty_interval, config.n_critic)
    settled = cycle * (WARMUP_STEPS + 1) if devices.is_async else 2
    train(range(settled))
    first = math.ceil(settled / cycle) * cycle
    timed = range(first, first + cycle * (THROUGHPUT_CYCLES if devices.is_async else 1))
    return config.batch_size * len(timed) / train(timed)


def measure_throughput_within_memory(config: Config, devices: Devices) -> float:
    """Return `measure_throughput`, with a smaller batch where memory runs out; 1 where even one picture is too much."""
    batch_size = config.batch_size
    while batch_size:
        try:
            return measure_throughput(replace(config, batch_size=batch_size, gradient_accumulation=1, pac=1), devices)
        except CardiganError:
            if batch_size == config.batch_size:
                raise  # nothing to do with memory; of a smaller batch it may be that it no longer divides
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        batch_size //= 2
        release_memory()
    return 1.0


def halve_microbatch(config: Config) -> Config | None:
    """Return the config with half as many pictures computed at a time, gradients accumulated; None if that cannot be."""
    try:
        return replace(config, gradient_accumulation=2 * config.gradient_accumulation)
    except CardiganError:
        return None


def _build_adam(network: Module, config: AdamConfig, devices: Devices) -> torch.optim.Adam:
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    ahead = devices.is_async  # a recorded step reads the rate, and counts, in the device's memory
    rate = torch.tensor(config.learning_rate, device=parameters[0].device) if ahead else config.learning_rate
    return torch.optim.Adam(parameters, lr=rate, betas=(config.beta1, config.beta2), fused=True, capturable=ahead)
