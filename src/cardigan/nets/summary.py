"""What a network costs, as a whole and layer by layer. Computes no picture: networks may be on the meta device."""

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
    """One layer: a module with learned numbers or products of its own."""

    name: str
    module_type: str
    output_shape: tuple[int, ...]
    """Of what it gives for one picture."""
    num_parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class ModelSummary:
    """What a network costs. Its layers' counts add up to its own."""

    num_parameters: int
    """Learned numbers."""
    multiply_adds: int
    """Of its convolutions and matrix products, for one picture forward; for one pack, where D judges packs."""
    layers: tuple[LayerSummary, ...]
    """In the order in which they are done."""


def summarize_model(network: nn.Module, spec: ImageSpec, latent_size: int) -> ModelSummary:
    """Count the cost of a generator or a discriminator and leave it in evaluation mode."""
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
    """Follows a network's modules as they are called, and keeps what each computes itself, its parts left out."""

    def __init__(self, network: nn.Module, counter: FlopCounterMode) -> None:
        self.layers: list[LayerSummary] = []
        self._counter = counter
        self._flops_at_entry: list[int] = []
        """For each module being computed, what must be taken from the count at its end: the count before it and all that its parts did."""
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
            self._flops_at_entry = [known + own_flops for known in self._flops_at_entry]
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
    """Count a module's learned numbers, without its parts', with those that a parametrization keeps for it."""
    parametrized = (
        list(module.parametrizations.parameters())
        if is_parametrized(module) and isinstance(module.parametrizations, nn.Module)
        else []
    )
    return sum(parameter.numel() for parameter in [*module.parameters(recurse=False), *parametrized])
