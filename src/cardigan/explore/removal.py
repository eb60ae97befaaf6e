"""Forgetting to draw: a generator's pictures without some of its features (arXiv:1511.06434, section 6.2). Changes no weight."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from cardigan.errors import CardiganError
from cardigan.explore.layers import generator_layers, layer_at
from cardigan.run.snapshot import Snapshot, draw_pixels
from cardigan.shapes import Labels, Latents, Pixels


def removed(snapshot: Snapshot, z: Latents, labels: Labels | None, channels: Sequence[int], layer: int) -> Pixels:
    """Return the pictures of z with these channels of one layer set to 0 everywhere; no channel gives the pictures as they are.

    Layers are counted from the one after z (0) to the last before the picture (-1); in `mlp` a channel is a single unit.
    Raises CardiganError for a layer or channel that is not there.
    """
    module = layer_at(generator_layers(snapshot.generator), layer)
    chosen = list(channels)

    def drop(module: nn.Module, given: Any, out: Tensor) -> Tensor:
        wrong = [channel for channel in chosen if not 0 <= channel < out.shape[1]]
        if wrong:
            raise CardiganError(f"channel is {wrong[0]}: expected 0..{out.shape[1] - 1} in this layer.")
        kept = out.clone()
        kept[:, chosen] = 0
        return kept

    hook = module.register_forward_hook(drop)
    try:
        return draw_pixels(snapshot.generator, z, labels)
    finally:
        hook.remove()
