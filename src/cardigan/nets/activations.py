"""The features of a network: what the layers that its class names (`feature_modules`) compute."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from cardigan.errors import CardiganError
from cardigan.nets.interface import Discriminator, Generator
from cardigan.shapes import Images, Labels, Latents


def feature_layers(network: Generator | Discriminator) -> list[nn.Module]:
    """Return the modules whose outputs are features. Raises CardiganError for a network that names none."""
    if not network.feature_modules:
        raise CardiganError(
            f"{type(network).__name__} does not say which of its layers are features: "
            "its class has to set feature_modules (docs/guides/extend.md)."
        )
    return list(getattr(network, network.feature_modules))


def generate_with_maps(generator: Generator, z: Latents, labels: Labels | None) -> tuple[Images, tuple[Tensor, ...]]:
    """Return images, and the features of each layer: [batch, channel, height, width], or [batch, unit]."""
    with record_activations(feature_layers(generator)) as maps:
        return generator(z, labels), tuple(maps)


@contextmanager
def record_activations(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Yield a list that receives each layer's output, in the order computed. Clear it between passes."""
    outputs: list[Tensor] = []

    def record(module: nn.Module, module_inputs: Any, output: Tensor) -> None:
        outputs.append(output)

    hooks = [layer.register_forward_hook(record) for layer in layers]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
