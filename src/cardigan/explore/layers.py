"""Feature layers of a network, in the order they are computed, as its class names them (`nets/interface.py`)."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from torch import Tensor, nn

from cardigan.errors import CardiganError
from cardigan.nets.activations import feature_layers
from cardigan.nets.interface import Discriminator, Generator
from cardigan.nets.pacgan import PacDiscriminator


def generator_layers(generator: Generator) -> list[nn.Module]:
    """Return the modules whose outputs are G's features."""
    return feature_layers(generator)


def discriminator_layers(discriminator: Discriminator) -> list[nn.Module]:
    """Return the modules whose outputs are D's features; raises CardiganError for a D with pac > 1."""
    check_not_packed(discriminator)
    return feature_layers(discriminator)


def check_not_packed(discriminator: nn.Module) -> None:
    """Raise CardiganError for a discriminator that scores several images together."""
    if isinstance(discriminator, PacDiscriminator):
        raise CardiganError(
            f"This discriminator scores packs of {discriminator.pac} images together, so a single image has no logit: "
            "give a run that was trained with pac 1."
        )


def layer_at(layers: Sequence[nn.Module], layer: int) -> nn.Module:
    """Return one layer by its index, from the end if negative; raises CardiganError if it does not exist."""
    if not -len(layers) <= layer < len(layers):
        raise CardiganError(f"layer is {layer}: expected 0..{len(layers) - 1}, or -1 for the last.")
    return layers[layer]


class StopForward(Exception):
    """Stops a forward pass after the layer of interest."""


def layer_output(layer: nn.Module, network: nn.Module, *inputs: Any) -> Tensor:
    """Return one layer's output in a forward pass, without computing the layers after it."""
    outputs: list[Tensor] = []

    def stop(module: nn.Module, module_inputs: Any, output: Tensor) -> None:
        outputs.append(output)
        raise StopForward

    hook = layer.register_forward_hook(stop)
    try:
        with suppress(StopForward):
            network(*inputs)
    finally:
        hook.remove()
    return outputs[0]
