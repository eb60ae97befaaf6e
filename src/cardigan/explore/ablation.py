"""Feature ablation in G: finds the channels active inside marked boxes and generates images without them.

Follows arXiv:1511.06434, section 6.2. Zeroes channels with forward hooks; changes no weight.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from cardigan.errors import CardiganError
from cardigan.explore.layers import generator_layers, layer_at
from cardigan.explore.views import ImageRow, SamplingOptions, labels_for
from cardigan.latents.interpolation import point_latents
from cardigan.models.sampling import generate_pixels
from cardigan.models.snapshot import Snapshot
from cardigan.nets.activations import record_activations
from cardigan.rng import stream
from cardigan.shapes import Labels, Latents, Pixels

PositionFeatures = Float[Tensor, "position channel"]
L2_WEIGHT = 1e-3
"""L2 weight in the logistic regression."""


@dataclass(frozen=True)
class SeedBox:
    """A box in one seed's image, in pixels. Right and bottom are exclusive."""

    seed: int
    left: int
    top: int
    right: int
    bottom: int


def parse_box(text: str, name: str = "--ablate-box") -> SeedBox:
    """Parse a box such as `3:10,5,20,18`: the seed, then left, top, right, bottom."""
    match = re.fullmatch(
        r"\s*(\d{1,18})\s*:\s*(\d{1,5})\s*,\s*(\d{1,5})\s*,\s*(\d{1,5})\s*,\s*(\d{1,5})\s*", text, re.ASCII
    )
    box = SeedBox(*map(int, match.groups())) if match else None
    if box is None or box.left >= box.right or box.top >= box.bottom:
        raise CardiganError(
            f"{name} is {text[:80]!r}: expected a seed and a box in its image (left, top, right, bottom), "
            "such as 3:10,5,20,18."
        )
    return box


def box_channels(snapshot: Snapshot, boxes: Sequence[SeedBox], layer: int | None = None, label: str = "") -> list[int]:
    """Return the channels with a positive weight in a logistic regression of inside against outside positions.

    Inside are all positions of the layer's feature maps whose center lies in a box. Outside is an equally large random
    sample of the other positions in the same images. `layer` defaults to the last but one. Raises CardiganError for a
    box outside the image, for a layer without feature maps, and for boxes that contain no position or all of them.
    """
    if not boxes:
        raise CardiganError("No box was given: mark what to ablate, such as --ablate-box 3:10,5,20,18.")
    layer_module = layer_at(generator_layers(snapshot.generator), _layer_index(snapshot, layer))
    seeds = list(dict.fromkeys(box.seed for box in boxes))
    with record_activations([layer_module]) as maps:
        z = point_latents(snapshot.config, seeds)
        images = generate_pixels(snapshot.generator, z, labels_for(snapshot, seeds, label), batch_size=len(seeds))
    if maps[0].ndim != 4 or maps[0].shape[2:].numel() == 1:
        raise CardiganError(
            "This layer has single units and no positions: choose a layer with feature maps, or another network."
        )
    inside = _inside_boxes(boxes, seeds, images, maps[0])
    features = maps[0].movedim(1, -1).float()
    inside_features, outside_features = features[inside], features[~inside]
    if not len(inside_features) or not len(outside_features):
        raise CardiganError(
            f"The boxes contain {len(inside_features)} of the layer's {inside.numel()} positions: "
            "mark a part of the image, with larger or smaller boxes."
        )
    outside_features = outside_features[
        torch.randperm(len(outside_features), generator=stream(0, "forgetting", 0))[: len(inside_features)]
    ]
    weights = _logistic_weights(
        torch.cat([inside_features, outside_features]),
        torch.cat([torch.ones(len(inside_features)), torch.zeros(len(outside_features))]),
    )
    return (weights > 0).nonzero().flatten().tolist()


def without_channels(
    snapshot: Snapshot, seeds: Sequence[int], channels: Sequence[int], layer: int | None = None, label: str = ""
) -> tuple[Pixels, Pixels]:
    """Return the images of some seeds, and the same images generated without these channels."""
    z, labels = point_latents(snapshot.config, seeds), labels_for(snapshot, seeds, label)
    return generate_pixels(snapshot.generator, z, labels), ablate_channels(
        snapshot, z, labels, channels, _layer_index(snapshot, layer)
    )


def _layer_index(snapshot: Snapshot, layer: int | None) -> int:
    """Return `layer`, or by default the last but one, or the only one."""
    return layer if layer is not None else max(-2, -len(generator_layers(snapshot.generator)))


def _inside_boxes(
    boxes: Sequence[SeedBox], seeds: list[int], images: Pixels, maps: Tensor
) -> Bool[Tensor, "image row column"]:
    """Return which positions of the feature maps have their center in a box."""
    height, width = images.shape[2:]
    rows, columns = maps.shape[2:]
    center_y, center_x = (torch.arange(rows) + 0.5) * height / rows, (torch.arange(columns) + 0.5) * width / columns
    inside = torch.zeros(len(seeds), rows, columns, dtype=torch.bool)
    for box in boxes:
        if box.right > width or box.bottom > height:
            raise CardiganError(
                f"A box extends to {box.right}, {box.bottom}: the images are {width} wide and {height} high."
            )
        rows_inside, columns_inside = (
            (center_y >= box.top) & (center_y < box.bottom),
            (center_x >= box.left) & (center_x < box.right),
        )
        inside[seeds.index(box.seed)] |= rows_inside[:, None] & columns_inside[None]
    return inside


def _logistic_weights(rows: PositionFeatures, inside: Float[Tensor, " position"]) -> Float[Tensor, " channel"]:
    rows = rows / rows.std(0).clamp(min=1e-6)
    weights = torch.zeros(rows.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (
            binary_cross_entropy_with_logits(rows @ weights[:-1] + weights[-1], inside)
            + L2_WEIGHT * weights[:-1].square().sum()
        )
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return weights.detach()[:-1]


def ablate_channels(
    snapshot: Snapshot, z: Latents, labels: Labels | None, channels: Sequence[int], layer: int
) -> Pixels:
    """Return the images of z with these channels of one layer set to 0. Without channels the images are unchanged.

    Layer 0 follows z, layer -1 is the last before the image. In `mlp` a channel is a single unit.
    Raises CardiganError for a layer or channel that does not exist.
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


MAX_ABLATION_ROWS = 8
"""Maximum number of rows with ablated channels."""


def ablation_rows(snapshot: Snapshot, seeds: list[int], layer: int | None = None) -> list[ImageRow]:
    """Return a row of the seeds' images, then rows without the 1, 2, 4, 8, ... most important channels of a layer.

    `layer` defaults to the middle one. A channel's importance is the mean pixel change when it alone is ablated.
    """
    layers = generator_layers(snapshot.generator)
    if not layers:
        raise CardiganError(
            "This generator has no layer between z and the image, so no feature can be ablated: give a deeper one."
        )
    layer = len(layers) // 2 if layer is None else layer
    z, labels = point_latents(snapshot.config, seeds), labels_for(snapshot, seeds, SamplingOptions().label)
    with record_activations([layer_at(layers, layer)]) as maps:
        original = ablate_channels(snapshot, z, labels, [], layer)
    ablated = [ablate_channels(snapshot, z, labels, [channel], layer) for channel in range(maps[0].shape[1])]
    changes = torch.stack([(ablated_pixels.float() - original.float()).abs().mean() for ablated_pixels in ablated])
    order = changes.argsort(descending=True, stable=True).tolist()
    counts = [2**power for power in range(MAX_ABLATION_ROWS) if 2**power <= max(1, len(order) // 2)]
    return [original, *(ablate_channels(snapshot, z, labels, order[:count], layer) for count in counts)]
