"""From a Config to the objects it names: the one place where parts are put together.

Does not train, write or print.
"""

import copy

import torch
from torch.nn import Module

from cardigan.config import AdamConfig, Config
from cardigan.data.batches import Batches
from cardigan.data.mnist import mnist
from cardigan.data.source import ImageSource, ImageSpec, image_spec, limited
from cardigan.data.stacked import stacked_mnist
from cardigan.errors import CardiganError, unknown
from cardigan.figures.grid import beside, png
from cardigan.metrics.quick import quick_verdict
from cardigan.nets.table import build_discriminator, build_generator
from cardigan.objective.losses import find_loss
from cardigan.pixels import encode
from cardigan.review import write_report
from cardigan.rng import stream
from cardigan.run.atomic import write_bytes
from cardigan.run.directory import RunDirectory
from cardigan.run.snapshot import Snapshot, numbered, sample_pixels
from cardigan.training.augmentation import build_augmentation
from cardigan.training.devices import Devices
from cardigan.training.recorder import Observers
from cardigan.training.state import TrainState
from cardigan.training.steps import Players, Rules

SOURCES = {"mnist": mnist, "stacked-mnist": stacked_mnist}
JUDGED_SAMPLES = 2_000
"""Pictures drawn for the score that picks the best checkpoint; few, so that judging stays cheap."""


def build_source(config: Config) -> ImageSource:
    if config.data.source not in SOURCES:
        raise unknown("source", config.data.source, SOURCES)
    return limited(SOURCES[config.data.source](config.data.split), config.data.limit)


def build_spec(config: Config, source: ImageSource) -> ImageSpec:
    stored = source.pixels.shape[1]
    if stored not in {1, config.data.channels}:
        raise CardiganError(
            f"data.channels is {config.data.channels}, but the pictures of {source.name!r} have {stored}: set data.channels to {stored}."
        )
    if config.conditional and not source.classes:
        raise CardiganError(f"conditional is on, but the pictures of {source.name!r} have no classes: leave it out, or give pictures with labels.")
    return image_spec(config.data, source.classes if config.conditional else 0)


def build_state(config: Config, spec: ImageSpec, devices: Devices) -> TrainState:
    """Return the state before the first step; its weights are a function of the seed, and global randomness is left untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(config.seed, "weights", 0).initial_seed())
        generator = devices.place(build_generator(config, spec)).train()
        discriminator = devices.place(build_discriminator(config, spec)).train()
    average = copy.deepcopy(generator).eval().requires_grad_(False)
    players = Players(
        generator,
        discriminator,
        _adam(generator, config.generator_optimizer),
        _adam(discriminator, config.discriminator_optimizer),
    )
    return TrainState(players, average, images_seen=0, augmentation=build_augmentation(config.augment, spec.channels, devices.device))


def build_rules(config: Config, devices: Devices) -> Rules:
    """Raises CardiganError for an unknown loss, or one without a minimum and nothing that gives it one."""
    loss = find_loss(config.objective.loss)
    if not (loss.bounded or config.objective.penalised or config.discriminator.spectral):
        raise CardiganError(
            f"objective.loss is {config.objective.loss!r} and nothing bounds D's slope, so its loss has no end: set objective.wgan_gp "
            "(the paper's is 10), another penalty, or discriminator.spectral."
        )
    return Rules(loss, config.objective, config.conditional, devices, config.accumulate)


def build_observers(config: Config, batches: Batches, run: RunDirectory) -> Observers:
    """Return what draws sample grids into the run and what judges its checkpoints."""
    count = min(config.batch, 64)
    first = batches.at(0, count)
    real = encode(first.images).cpu()
    labels = first.labels.cpu() if config.conditional else None

    def draw(snapshot: Snapshot) -> dict[str, int | float]:
        drawn = sample_pixels(snapshot, numbered(count, config.seed), labels)
        write_bytes(run.sample(snapshot.images_seen), png(beside(drawn, real)))
        return {"num_samples": count}

    verdict = quick_verdict(batches.source, config.data)

    def judge(snapshot: Snapshot) -> dict[str, float]:
        assert verdict is not None
        return verdict(sample_pixels(snapshot, numbered(JUDGED_SAMPLES, config.seed)))

    def conclude(snapshot: Snapshot) -> None:
        write_report(run, snapshot, whole=False)

    return Observers(draw, None if verdict is None else judge, conclude)


def _adam(network: Module, config: AdamConfig) -> torch.optim.Adam:
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    device = parameters[0].device
    on_gpu = device.type == "cuda"  # a recorded step reads the rate from the device's memory
    rate = torch.tensor(config.learning_rate, device=device) if on_gpu else config.learning_rate
    return torch.optim.Adam(parameters, lr=rate, betas=(config.beta1, config.beta2), fused=True, capturable=on_gpu)
