"""What a network costs, as a whole and layer by layer. Computes no picture: networks may be on the meta device."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations
from torch.utils.flop_counter import FlopCounterMode

from cardigan.data.source import ImageSpec
from cardigan.nets.interface import Generator
from cardigan.nets.packing import Packed


@dataclass(frozen=True)
class LayerCost:
    """One layer: a module with learned numbers or products of its own."""

    name: str
    kind: str
    shape: tuple[int, ...]
    """Of what it gives for one picture."""
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Description:
    """What a network costs. Its layers' counts add up to its own."""

    parameters: int
    """Learned numbers."""
    multiply_adds: int
    """Of its convolutions and matrix products, for one picture forward; for one pack, where D judges packs."""
    layers: tuple[LayerCost, ...]
    """In the order in which they are done."""


def describe(network: nn.Module, spec: ImageSpec, latent_size: int) -> Description:
    """Count the cost of a generator or a discriminator and leave it in evaluation mode."""
    device = next(network.parameters()).device
    labels = torch.zeros(1, dtype=torch.int64, device=device) if spec.classes else None
    num_pictures = network.packing if isinstance(network, Packed) else 1
    row = (latent_size,) if isinstance(network, Generator) else (spec.channels, spec.height, spec.width)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tally = Tally(network.eval(), counter)
        try:
            network(torch.zeros(num_pictures, *row, device=device), labels)
        finally:
            tally.end()
    return Description(sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops() // 2, tuple(tally.layers))


class Tally:
    """Follows a network's modules as they are called, and keeps what each computes itself, its parts left out."""

    def __init__(self, network: nn.Module, counter: FlopCounterMode) -> None:
        self.layers: list[LayerCost] = []
        self._counter = counter
        self._open: list[int] = []
        """For each module being computed, what must be taken from the count at its end: the count before it and all that its parts did."""
        self._hooks = []
        for name, module in network.named_modules():
            if "parametrizations" not in name.split("."):
                self._hooks += [module.register_forward_pre_hook(self._begin), module.register_forward_hook(self._ended(name or "itself"))]

    def end(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _begin(self, module: nn.Module, inputs: Any) -> None:
        self._open.append(self._counter.get_total_flops())

    def _ended(self, name: str) -> Any:
        def end(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            own = self._counter.get_total_flops() - self._open.pop()
            self._open = [known + own for known in self._open]
            parameters = own_parameters(module)
            if own or parameters:
                self.layers.append(LayerCost(name, type_before_parametrizations(module).__name__, tuple(output.shape[1:]), parameters, own // 2))

        return end


def own_parameters(module: nn.Module) -> int:
    """Count a module's learned numbers, without its parts', with those that a parametrization keeps for it."""
    kept = list(module.parametrizations.parameters()) if is_parametrized(module) and isinstance(module.parametrizations, nn.Module) else []
    return sum(parameter.numel() for parameter in [*module.parameters(recurse=False), *kept])
