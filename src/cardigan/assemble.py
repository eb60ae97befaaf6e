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
from cardigan.data.feed import Feed, Stream
from cardigan.data.pictures import LOOKED_AT, Pictures, open_pictures
from cardigan.data.source import ImageSource, ImageSpec, image_spec
from cardigan.errors import CardiganError
from cardigan.figures.grid import beside, png
from cardigan.hardware.memory import free_device_bytes, is_out_of_memory, release_memory
from cardigan.hardware.metal import is_metal
from cardigan.metrics.quick import quick_verdict
from cardigan.nets.table import build_players
from cardigan.objective.losses import find_loss
from cardigan.pixels import encode
from cardigan.review import write_report
from cardigan.rng import stream
from cardigan.run.atomic import write_bytes
from cardigan.run.directory import RunDirectory
from cardigan.run.snapshot import Snapshot, numbered, sample_pixels
from cardigan.shapes import Labels, Pixels
from cardigan.training.augmentation import build_augmentation
from cardigan.training.cuda_graph import WARM_UP_STEPS, recorded_step
from cardigan.training.devices import Devices
from cardigan.training.inputs import inputs_at
from cardigan.training.loop import playing
from cardigan.training.processes import world_size
from cardigan.training.recorder import Observers, Opinions
from cardigan.training.schedule import kind_of_step, step_kinds
from cardigan.training.state import TrainState
from cardigan.training.steps import Players, Rules

RESIDENT_SHARE = 0.4
"""Of a GPU's free memory, that pictures may take; more stay where they are and travel step by step."""

PACE_CYCLES = 16
"""Rounds of all kinds of step that a GPU's pace is measured over: one round takes it a few milliseconds."""


def build_source(config: Config) -> ImageSource:
    """Return the pictures that are trained on; of a stream, a sample."""
    return open_pictures(config.data).training


def build_batches(config: Config, pictures: Pictures, devices: Devices) -> tuple[Batches, Feed | None]:
    """Return the pictures on the device, and nothing else if all of them fit there.

    Otherwise as many as are looked at between steps, and what brings those that are trained on, step by step.
    """
    source, share = pictures.training, devices.processes.share(config.batch)
    if pictures.streamed is not None:
        feed = Feed(pictures.streamed(config.seed, config.batch, share), config.batch, config.conditional)
    elif not _fits(source, devices.device):
        feed = Feed(_sent(source, config, share), config.batch)
        source = replace(source, pixels=source.pixels[:LOOKED_AT], labels=source.labels[:LOOKED_AT])
    else:
        feed = None
    return Batches(source.to(devices.device), config.data, config.seed), feed


def _fits(source: ImageSource, device: torch.device) -> bool:
    """Return whether all images can lie on the device; on a CPU they do already."""
    if device.type == "cpu":
        return True
    indexable = not is_metal(device) or source.pixels.numel() < 2**31
    return indexable and source.pixels.nbytes <= RESIDENT_SHARE * free_device_bytes(device)


def _sent(source: ImageSource, config: Config, share: slice) -> Stream:
    order = Batches(source, config.data, config.seed).order

    def stream(images_seen: int) -> Generator[tuple[Pixels, Labels], None, None]:
        for step in itertools.count():
            own = order.at(images_seen + step * config.batch, config.batch)[share]
            yield source.stored(own), source.labels_at(own)

    return stream


def build_spec(config: Config, source: ImageSource) -> ImageSpec:
    stored = source.pixels.shape[1]
    if stored not in {1, config.data.channels}:
        raise CardiganError(
            f"data.channels is {config.data.channels}, but the pictures of {source.name!r} have {stored}: set data.channels to {stored}."
        )
    if config.conditional and not source.classes:
        raise CardiganError(
            f"conditional is on, but the pictures of {source.name!r} have no classes: turn it off (--no-conditional), or say where "
            "they are with data.labels (folders, a file, a column)."
        )
    return image_spec(config.data, source.classes, source.class_names) if config.conditional else image_spec(config.data, 0)


def build_state(config: Config, spec: ImageSpec, devices: Devices) -> TrainState:
    """Return the state before the first step; its weights are a function of the seed, and global randomness is left untouched."""
    generator, discriminator = build_players(config, spec)
    generator, discriminator = devices.place(generator).train(), devices.place(discriminator).train()
    average = copy.deepcopy(generator).eval().requires_grad_(False)
    players = Players(
        generator,
        discriminator,
        _adam(generator, config.generator_optimizer, devices),
        _adam(discriminator, config.discriminator_optimizer, devices),
    )
    return TrainState(players, average, images_seen=0, augmentation=build_augmentation(config.augment, spec.channels, devices.device))


def build_rules(config: Config, devices: Devices) -> Rules:
    """Raises CardiganError for an unknown loss, or one without a minimum and nothing that gives it one."""
    loss = find_loss(config.objective.loss)
    player = config.discriminator
    bounds = player.spectral and player.normalisation == "none" and not player.attention  # both have scales that are learned freely
    if not (loss.bounded or config.objective.penalised or bounds):
        raise CardiganError(
            f"objective.loss is {config.objective.loss!r} and nothing bounds D's slope, so its loss has no end: set objective.wgan_gp "
            "(the paper's is 10), another penalty, or discriminator.spectral, with discriminator.normalisation 'none' and attention 0."
        )
    return Rules(loss, config.objective, config.conditional, devices, config.accumulate)


def check_parts(config: Config, devices: Devices) -> None:
    """Raise CardiganError for parts that cannot be built or do not fit together; needs no pictures, and no memory for weights."""
    build_rules(config, devices)
    build_augmentation(config.augment, config.data.channels, torch.device("cpu"))
    with torch.device("meta"):
        build_players(config, image_spec(config.data, 2 if config.conditional else 0))


def build_observers(config: Config, batches: Batches, run: RunDirectory, held_out: ImageSource | None = None) -> Observers:
    """Return what draws sample grids into the run and what judges its checkpoints."""
    count = min(config.batch, 64, len(batches.source))
    first = batches.at(0, count)
    real = encode(first.images).cpu()
    labels = first.labels.cpu() if config.conditional else None

    def draw(snapshot: Snapshot, opinions: Opinions) -> dict[str, Any]:
        drawn = sample_pixels(snapshot, numbered(count, config.seed), labels)
        write_bytes(run.sample(snapshot.images_seen), png(beside(drawn, real)))
        return {"num_samples": count, "logits_fake": opinions(drawn, labels), "logits_real": opinions(real, labels)}

    verdict = quick_verdict(batches.source, config.data, held_out)

    def judge(snapshot: Snapshot) -> dict[str, float]:
        return verdict.judge(sample_pixels(snapshot, numbered(verdict.num_samples, config.seed)))

    def conclude(snapshot: Snapshot) -> None:
        write_report(run, snapshot, whole=False)

    return Observers(draw, judge, conclude)


def check_labels(config: Config, pictures: Pictures) -> None:
    """Raise CardiganError if pictures have no class and the training is conditional."""
    if config.conditional and pictures.unlabelled:
        raise CardiganError(
            f"conditional is on, but {pictures.unlabelled:,} of the pictures of {config.data.source} have no class: "
            "add the missing labels, remove those pictures, or leave conditional out."
        )


def measured_pace(config: Config, devices: Devices) -> float:
    """Return how many images a second a training of these settings sees on this device; trains a little on noise.

    Steps run as they will in the training: recorded where one process has a GPU, whose queue is waited for once, at the end.
    """
    players = {name: replace(getattr(config, name), conditioning="auto") for name in ("generator", "discriminator")}
    config = replace(config, conditional=False, accumulate=1, **players)
    data = config.data
    noise = torch.randint(0, 256, (config.batch, data.channels, data.height, data.width), dtype=torch.uint8, generator=stream(0, "pace", 0))
    source = ImageSource("noise", noise, torch.zeros(config.batch, dtype=torch.long), 0).to(devices.device)
    state, rules, batches = build_state(config, image_spec(data, 0), devices), build_rules(config, devices), Batches(source, data, 0)
    play = recorded_step(playing(state, batches, rules), devices.device, world_size(), step_kinds(config))

    def train(steps: range) -> float:
        began = time.monotonic()
        seen = [step * config.batch for step in steps]
        measured = [play(inputs_at(config, batches, at, devices), kind_of_step(config, at)) for at in seen]
        measured[-1].tolist()  # waits for a GPU
        return time.monotonic() - began

    cycle = math.lcm(config.objective.penalty_interval, config.discriminator_steps)
    settled = cycle * (WARM_UP_STEPS + 1) if devices.runs_ahead else 2
    train(range(settled))
    first = math.ceil(settled / cycle) * cycle
    timed = range(first, first + cycle * (PACE_CYCLES if devices.runs_ahead else 1))
    return config.batch * len(timed) / train(timed)


def pace_in_parts(config: Config, devices: Devices) -> float:
    """Return `measured_pace`, with a smaller batch where memory runs out; 1 where even one picture is too much."""
    batch = config.batch
    while batch:
        try:
            return measured_pace(replace(config, batch=batch, accumulate=1, packing=1), devices)
        except CardiganError:
            if batch == config.batch:
                raise  # nothing to do with memory; of a smaller batch it may be that it no longer divides
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        batch //= 2
        release_memory()
    return 1.0


def smaller_parts(config: Config) -> Config | None:
    """Return the config with half as many pictures computed at a time, gradients accumulated; None if that cannot be."""
    try:
        return replace(config, accumulate=2 * config.accumulate)
    except CardiganError:
        return None


def _adam(network: Module, config: AdamConfig, devices: Devices) -> torch.optim.Adam:
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    ahead = devices.runs_ahead  # a recorded step reads the rate, and counts, in the device's memory
    rate = torch.tensor(config.learning_rate, device=parameters[0].device) if ahead else config.learning_rate
    return torch.optim.Adam(parameters, lr=rate, betas=(config.beta1, config.beta2), fused=True, capturable=ahead)
