"""The exponential moving average of the generator's weights, and its batch statistics."""

import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cardigan.config import Config
from cardigan.data.source import ImageSpec
from cardigan.latents.sampling import draw_labels, find_latent
from cardigan.nets.interface import Generator
from cardigan.rng import stream
from cardigan.training.sync_batch_norm import local_copy

STATISTICS_BATCH_SIZE = 64


@torch.no_grad()
def update_ema(ema_model: nn.Module, model: nn.Module, weight: float | torch.Tensor) -> None:
    """Move the parameters of `ema_model` toward those of `model` by `weight`, and copy its buffers (batch statistics,
    counters).

    Both are modules of one architecture, changed in place. With weight 1 they become equal, with 0 parameters stay.

    Examples:
        >>> import cardigan
        >>> import torch
        >>> average, model = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        >>> for parameter in average.parameters(): _ = torch.nn.init.zeros_(parameter)
        >>> for parameter in model.parameters(): _ = torch.nn.init.ones_(parameter)
        >>> cardigan.update_ema(average, model, 0.25)
        >>> average.weight.item()
        0.25
    """
    for ema_tensor, tensor in zip(ema_model.parameters(), model.parameters(), strict=True):
        ema_tensor.lerp_(tensor, weight)
    for ema_tensor, tensor in zip(ema_model.buffers(), model.buffers(), strict=True):
        ema_tensor.copy_(tensor)


@torch.no_grad()
def with_own_statistics(ema_generator: Generator, config: Config, spec: ImageSpec) -> Generator:
    """Return a copy with batch statistics of its own images (standing statistics, arXiv:1809.11096, appendix D).

    `update_ema` copies those of the trained generator, which do not fit the averaged weights where the learning rate is
    high. Computed from `config.ema.statistics_samples` latents, a function of the seed, with classes drawn as in
    samples.
    """
    count = config.ema.statistics_samples
    generator = local_copy(ema_generator)
    layers = [module for module in generator.modules() if isinstance(module, _BatchNorm)]
    if not layers:
        return generator
    counters = [None if layer.num_batches_tracked is None else layer.num_batches_tracked.clone() for layer in layers]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
    device = next(generator.parameters()).device
    z = find_latent(config.latent.distribution)((count, config.latent.size), stream(config.seed, "batch statistics", 0))
    rng = stream(config.seed, "batch statistics", 1)
    labels = draw_labels(count, max(1, spec.num_classes), spec.class_counts, rng)
    num_batches = math.ceil(count / STATISTICS_BATCH_SIZE)
    for z_batch, label_batch in zip(z.chunk(num_batches), labels.chunk(num_batches), strict=True):
        _with_batch_statistics(
            generator, layers, z_batch.to(device), label_batch.to(device) if spec.num_classes else None
        )
    for layer, counter, momentum in zip(layers, counters, momenta, strict=True):
        layer.num_batches_tracked, layer.momentum = counter, momentum
    return generator


def _with_batch_statistics(
    generator: Generator, layers: list[_BatchNorm], z: torch.Tensor, labels: torch.Tensor | None
) -> None:
    """Generate images once, with the batch normalizations in training mode and all else as it is."""
    for layer in layers:
        layer.train()
    generator(z, labels)
    for layer in layers:
        layer.eval()
