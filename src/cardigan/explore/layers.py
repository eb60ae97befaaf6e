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
from cardigan.nets.pacgan import PacDiscriminator
from cardigan.nets.r3gan import R3ganDiscriminator, R3ganGenerator
from cardigan.nets.resnet import ResnetDiscriminator, ResnetGenerator

FEATURE_MODULES: dict[type[nn.Module], str] = {
    **{DcganGenerator: "norms", ResnetGenerator: "up_stages", R3ganGenerator: "blocks", MlpGenerator: "hidden"},
    **{
        DcganDiscriminator: "norms",
        ResnetDiscriminator: "layers",
        R3ganDiscriminator: "blocks",
        MlpDiscriminator: "hidden",
    },
}
"""The list of modules whose outputs are a network's features: before the rectifier where one follows; maps, or in `mlp` single units."""


def generator_layers(generator: Generator) -> list[nn.Module]:
    """Return the modules whose outputs are G's features."""
    return _layers(generator)


def discriminator_layers(discriminator: Discriminator) -> list[nn.Module]:
    """Return the modules whose outputs are D's features; raises CardiganError for a D that judges packs."""
    check_not_packed(discriminator)
    return _layers(discriminator)


def _layers(network: nn.Module) -> list[nn.Module]:
    if type(network) not in FEATURE_MODULES:
        raise CardiganError(
            f"Where the features of a {type(network).__name__} are is not known: name them in explore/layers.py."
        )
    return list(getattr(network, FEATURE_MODULES[type(network)]))


def check_not_packed(discriminator: nn.Module) -> None:
    """Raise CardiganError for a discriminator that has no opinion on a single picture."""
    if isinstance(discriminator, PacDiscriminator):
        raise CardiganError(
            f"This discriminator judges packs of {discriminator.pac} pictures together, so it has no opinion on one: "
            "give a run that was trained with pac 1."
        )


def layer_at(layers: Sequence[nn.Module], layer: int) -> nn.Module:
    """Return one of the layers, counted from 0, or from the end with -1; raises CardiganError if there is none."""
    if not -len(layers) <= layer < len(layers):
        raise CardiganError(f"layer is {layer}: expected 0..{len(layers) - 1}, or -1 for the last.")
    return layers[layer]


class StopForward(Exception):
    """A pass has come as far as it is wanted."""


def layer_output(layer: nn.Module, network: nn.Module, *inputs: Any) -> Tensor:
    """Return what one layer gives in a pass of a network, computing nothing after it: of a large generator the first layer is the least."""
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


@contextmanager
def record_activations(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Yield a list that, after a pass inside the block, holds what each layer gave, in the order computed; clear it between passes."""
    outputs: list[Tensor] = []

    def record(module: nn.Module, module_inputs: Any, output: Tensor) -> None:
        outputs.append(output)

    hooks = [layer.register_forward_hook(record) for layer in layers]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
