"""Where each network's features are: the modules whose outputs they are, from the first that is computed to the last.

The one file of this room that knows the networks by name.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor, nn

from cardigan.errors import CardiganError
from cardigan.nets.dcgan import DcganDiscriminator, DcganGenerator
from cardigan.nets.interface import Discriminator, Generator
from cardigan.nets.mlp import MlpDiscriminator, MlpGenerator
from cardigan.nets.packing import Packed
from cardigan.nets.r3gan import R3ganDiscriminator, R3ganGenerator
from cardigan.nets.resnet import ResnetDiscriminator, ResnetGenerator

FEATURES: dict[type[nn.Module], str] = {
    **{DcganGenerator: "norms", ResnetGenerator: "sizes", R3ganGenerator: "blocks", MlpGenerator: "hidden"},
    **{DcganDiscriminator: "norms", ResnetDiscriminator: "layers", R3ganDiscriminator: "blocks", MlpDiscriminator: "hidden"},
}
"""The list of modules whose outputs are a network's features: before the rectifier where one follows; maps, or in `mlp` single units."""


def generator_layers(generator: Generator) -> list[nn.Module]:
    """Return the modules whose outputs are G's features."""
    return _layers(generator)


def discriminator_layers(discriminator: Discriminator) -> list[nn.Module]:
    """Return the modules whose outputs are D's features; raises CardiganError for a D that judges packs."""
    refuse_packs(discriminator)
    return _layers(discriminator)


def _layers(network: nn.Module) -> list[nn.Module]:
    if type(network) not in FEATURES:
        raise CardiganError(f"Where the features of a {type(network).__name__} are is not known: name them in explore/layers.py.")
    return list(getattr(network, FEATURES[type(network)]))


def refuse_packs(discriminator: nn.Module) -> None:
    """Raise CardiganError for a discriminator that has no opinion on a single picture."""
    if isinstance(discriminator, Packed):
        raise CardiganError(
            f"This discriminator judges packs of {discriminator.packing} pictures together, so it has no opinion on one: "
            "give a run that was trained with packing 1."
        )


def layer_at(layers: Sequence[nn.Module], layer: int) -> nn.Module:
    """Return one of the layers, counted from 0, or from the end with -1; raises CardiganError if there is none."""
    if not -len(layers) <= layer < len(layers):
        raise CardiganError(f"layer is {layer}: expected 0..{len(layers) - 1}, or -1 for the last.")
    return layers[layer]


class Reached(Exception):
    """A pass has come as far as it is wanted."""


def outputs_up_to(layer: nn.Module, network: nn.Module, *inputs: Any) -> Tensor:
    """Return what one layer gives in a pass of a network, computing nothing after it: of a large generator the first layer is the least."""
    outputs: list[Tensor] = []

    def stop(module: nn.Module, given: Any, out: Tensor) -> None:
        outputs.append(out)
        raise Reached

    hook = layer.register_forward_hook(stop)
    try:
        with suppress(Reached):
            network(*inputs)
    finally:
        hook.remove()
    return outputs[0]


@contextmanager
def seen(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Yield a list that, after a pass inside the block, holds what each layer gave, in the order computed; clear it between passes."""
    outputs: list[Tensor] = []

    def remember(module: nn.Module, given: Any, out: Tensor) -> None:
        outputs.append(out)

    hooks = [layer.register_forward_hook(remember) for layer in layers]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
