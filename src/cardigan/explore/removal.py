"""Forgetting to draw: a generator's pictures without some of its features (arXiv:1511.06434, section 6.2). Changes no weight."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from cardigan.errors import CardiganError
from cardigan.explore.layers import generator_layers, layer_at
from cardigan.models.snapshot import Snapshot, generate_pixels
from cardigan.shapes import Labels, Latents, Pixels


def ablate_channels(
    snapshot: Snapshot, z: Latents, labels: Labels | None, channels: Sequence[int], layer: int
) -> Pixels:
    """Return the pictures of z with these channels of one layer set to 0 everywhere; no channel gives the pictures as they are.

    Layers are counted from the one after z (0) to the last before the picture (-1); in `mlp` a channel is a single unit.
    Raises CardiganError for a layer or channel that is not there.
    """
    module = layer_at(generator_layers(snapshot.generator), layer)
    channel_list = list(channels)

    def zero_channels(module: nn.Module, module_inputs: Any, output: Tensor) -> Tensor:
        out_of_range = [channel for channel in channel_list if not 0 <= channel < output.shape[1]]
        if out_of_range:
            raise CardiganError(f"channel is {out_of_range[0]}: expected 0..{output.shape[1] - 1} in this layer.")
        ablated = output.clone()
        ablated[:, channel_list] = 0
        return ablated

    hook = module.register_forward_hook(zero_channels)
    try:
        return generate_pixels(snapshot.generator, z, labels)
    finally:
        hook.remove()
