"""Parameters and multiply-adds of a network, in total and per layer. The network may be on the meta device."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations
from torch.utils.flop_counter import FlopCounterMode

from cardigan.data.source import ImageSpec
from cardigan.nets.interface import Generator
from cardigan.nets.pacgan import PacDiscriminator


@dataclass(frozen=True)
class LayerSummary:
    """A module that has parameters or multiply-adds itself, not only in its submodules."""

    name: str
    module_type: str
    output_shape: tuple[int, ...]
    """Output shape for one image, without the batch axis."""
    num_parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class ModelSummary:
    """The cost of a network. The counts of its layers add up to its totals."""

    num_parameters: int
    multiply_adds: int
    """Multiply-adds of convolutions and matrix products in the forward pass of one image, or of one pack (PacGAN)."""
    layers: tuple[LayerSummary, ...]
    """In the order of execution."""


def summarize_model(network: nn.Module, spec: ImageSpec, latent_size: int) -> ModelSummary:
    """Return the cost of a generator or a discriminator. The network is left in evaluation mode."""
    device = next(network.parameters()).device
    labels = torch.zeros(1, dtype=torch.int64, device=device) if spec.num_classes else None
    num_images = network.pac if isinstance(network, PacDiscriminator) else 1
    input_shape = (latent_size,) if isinstance(network, Generator) else (spec.channels, spec.height, spec.width)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        profiler = LayerProfiler(network.eval(), counter)
        try:
            network(torch.zeros(num_images, *input_shape, device=device), labels)
        finally:
            profiler.remove_hooks()
    return ModelSummary(
        sum(parameter.numel() for parameter in network.parameters()),
        counter.get_total_flops() // 2,
        tuple(profiler.layers),
    )


class LayerProfiler:
    """Records what each module of a network computes itself, without its submodules."""

    def __init__(self, network: nn.Module, counter: FlopCounterMode) -> None:
        self.layers: list[LayerSummary] = []
        self._counter = counter
        self._flops_at_entry: list[int] = []
        """For each running module, the count to subtract at its end: the count before it plus its submodules."""
        self._hooks = []
        for name, module in network.named_modules():
            if "parametrizations" not in name.split("."):
                self._hooks += [
                    module.register_forward_pre_hook(self._before_forward),
                    module.register_forward_hook(self._after_forward(name or "itself")),
                ]

    def remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _before_forward(self, module: nn.Module, inputs: Any) -> None:
        self._flops_at_entry.append(self._counter.get_total_flops())

    def _after_forward(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            own_flops = self._counter.get_total_flops() - self._flops_at_entry.pop()
            self._flops_at_entry = [flops + own_flops for flops in self._flops_at_entry]
            parameters = count_own_parameters(module)
            if own_flops or parameters:
                self.layers.append(
                    LayerSummary(
                        name,
                        type_before_parametrizations(module).__name__,
                        tuple(output.shape[1:]),
                        parameters,
                        own_flops // 2,
                    )
                )

        return hook


def count_own_parameters(module: nn.Module) -> int:
    """Return the number of a module's parameters, without its submodules, but with those of its parametrizations."""
    parametrized = (
        list(module.parametrizations.parameters())
        if is_parametrized(module) and isinstance(module.parametrizations, nn.Module)
        else []
    )
    return sum(parameter.numel() for parameter in [*module.parameters(recurse=False), *parametrized])
