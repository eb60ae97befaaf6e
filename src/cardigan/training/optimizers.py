"""Optimizers by name: one line in `OPTIMIZERS` turns an `OptimizerConfig` into a `torch.optim.Optimizer`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from cardigan.config_parts import OptimizerConfig
from cardigan.errors import CardiganError, unknown
from cardigan.training.devices import Devices

OptimizerFn = Callable[[list[nn.Parameter], Tensor | float, OptimizerConfig, dict[str, Any]], Optimizer]
"""From parameters, learning rate, settings, and arguments for a step in a CUDA graph, to an optimizer."""


def adam(
    parameters: list[nn.Parameter], learning_rate: Tensor | float, config: OptimizerConfig, options: dict[str, Any]
) -> Optimizer:
    """Return Adam (arXiv:1412.6980, algorithm 1), fused."""
    return Adam(parameters, lr=learning_rate, betas=(config.beta1, config.beta2), fused=True, **options)


def adamw(
    parameters: list[nn.Parameter], learning_rate: Tensor | float, config: OptimizerConfig, options: dict[str, Any]
) -> Optimizer:
    """Return AdamW (arXiv:1711.05101, algorithm 2) with PyTorch's weight decay of 0.01, fused."""
    return AdamW(parameters, lr=learning_rate, betas=(config.beta1, config.beta2), fused=True, **options)


def sgd(
    parameters: list[nn.Parameter], learning_rate: Tensor | float, config: OptimizerConfig, options: dict[str, Any]
) -> Optimizer:
    """Return SGD with `beta1` as its momentum, fused. `beta2` is not read."""
    return SGD(parameters, lr=learning_rate, momentum=config.beta1, fused=True)


def rmsprop(
    parameters: list[nn.Parameter], learning_rate: Tensor | float, config: OptimizerConfig, options: dict[str, Any]
) -> Optimizer:
    """Return RMSprop with `beta2` as its smoothing constant, as the WGAN paper trains. `beta1` is not read."""
    return RMSprop(parameters, lr=learning_rate, alpha=config.beta2)


OPTIMIZERS: dict[str, OptimizerFn] = {"adam": adam, "adamw": adamw, "sgd": sgd, "rmsprop": rmsprop}


def find_optimizer(name: str) -> OptimizerFn:
    """Return an optimizer by its name; raises CardiganError for an unknown one."""
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    return OPTIMIZERS[name]


def build_optimizer(network: nn.Module, config: OptimizerConfig, devices: Devices) -> Optimizer:
    """Return an optimizer of the network's trainable parameters.

    On a GPU a step may be recorded in a CUDA graph, and a step with numbers that are not finite is skipped inside
    the kernel: the optimizer must be fused there. Raises CardiganError for an unknown name, and on a GPU for one
    that is not fused.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    rate: Tensor | float = config.learning_rate
    options: dict[str, Any] = {}
    if devices.is_async:  # the recorded step reads the rate, and counts steps, in the device's memory
        rate, options = torch.tensor(config.learning_rate, device=parameters[0].device), {"capturable": True}
    optimizer = find_optimizer(config.name)(parameters, rate, config, options)
    if devices.is_async and not optimizer.defaults.get("fused"):
        raise CardiganError(
            f"The optimizer {config.name!r} is not fused, so it cannot skip a bad step on a GPU: train on the CPU "
            f"(--device cpu), or choose a fused one (adam, adamw, sgd)."
        )
    return optimizer
