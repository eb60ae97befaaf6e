"""Forgetting to draw a thing: which of G's features draw what lies in marked windows, and pictures without them (arXiv:1511.06434, section 6.2).

Reads features and drops them for the length of a pass; changes no weight.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from cardigan.errors import CardiganError
from cardigan.explore.layers import generator_layers, layer_at, seen
from cardigan.explore.paths import latents_of
from cardigan.explore.removal import removed
from cardigan.explore.views import labels_for
from cardigan.rng import stream
from cardigan.run.snapshot import Snapshot, draw_pixels
from cardigan.shapes import Pixels

Places = Float[Tensor, "place channel"]
WEIGHT = 1e-3
"""Of the squared coefficients in the logistic regression."""


@dataclass(frozen=True)
class Window:
    """A box around the thing in one seed's picture, in pixels; right and bottom are outside it."""

    seed: int
    left: int
    top: int
    right: int
    bottom: int


def parse_window(text: str, name: str = "--forget") -> Window:
    """Return a window of a text such as `3:10,5,20,18`: the seed, then left, top, right, bottom."""
    match = re.fullmatch(r"\s*(\d{1,18})\s*:\s*(\d{1,5})\s*,\s*(\d{1,5})\s*,\s*(\d{1,5})\s*,\s*(\d{1,5})\s*", text, re.ASCII)
    found = Window(*map(int, match.groups())) if match else None
    if found is None or found.left >= found.right or found.top >= found.bottom:
        raise CardiganError(f"{name} is {text[:80]!r}: expected a seed and a box in its picture, left, top, right, bottom, such as 3:10,5,20,18.")
    return found


def window_channels(snapshot: Snapshot, windows: Sequence[Window], layer: int | None = None, label: str = "") -> list[int]:
    """Return the channels of a layer that tell places inside the windows from others: those with a positive weight in a logistic regression.

    Inside are all places of the layer's maps whose middle lies in a window; outside as many, chosen at random from the same pictures. The layer is
    the last but one unless one is named. Raises CardiganError for a window outside the picture, a layer without maps, and windows that hold nothing
    or everything.
    """
    if not windows:
        raise CardiganError("No window was given: mark what is to be forgotten, such as --forget 3:10,5,20,18.")
    chosen = layer_at(generator_layers(snapshot.generator), _place(snapshot, layer))
    seeds = list(dict.fromkeys(window.seed for window in windows))
    with seen([chosen]) as maps:
        z = latents_of(snapshot.config, seeds)
        pictures = draw_pixels(snapshot.generator, z, labels_for(snapshot, seeds, label), chunk=len(seeds))
    if maps[0].ndim != 4 or maps[0].shape[2:].numel() == 1:
        raise CardiganError("This layer has no places, only single units, so no window lies in it: choose another layer, or a network with maps.")
    inside = _inside(windows, seeds, pictures, maps[0])
    features = maps[0].movedim(1, -1).float()
    held, others = features[inside], features[~inside]
    if not len(held) or not len(others):
        raise CardiganError(f"The windows hold {len(held)} of the layer's {inside.numel()} places: mark a part of the picture, larger or smaller.")
    others = others[torch.randperm(len(others), generator=stream(0, "forgetting", 0))[: len(held)]]
    weights = _logistic_weights(torch.cat([held, others]), torch.cat([torch.ones(len(held)), torch.zeros(len(others))]))
    return (weights > 0).nonzero().flatten().tolist()


def forgotten(snapshot: Snapshot, seeds: Sequence[int], channels: Sequence[int], layer: int | None = None, label: str = "") -> tuple[Pixels, Pixels]:
    """Return the pictures of some seeds, and the same drawn without these channels."""
    z, labels = latents_of(snapshot.config, seeds), labels_for(snapshot, seeds, label)
    return draw_pixels(snapshot.generator, z, labels), removed(snapshot, z, labels, channels, _place(snapshot, layer))


def _place(snapshot: Snapshot, layer: int | None) -> int:
    """Return the layer that is named, or the last but one, or the only one."""
    return layer if layer is not None else max(-2, -len(generator_layers(snapshot.generator)))


def _inside(windows: Sequence[Window], seeds: list[int], pictures: Pixels, maps: Tensor) -> Bool[Tensor, "picture row column"]:
    """Return which places of the maps have their middle in a window."""
    height, width = pictures.shape[2:]
    rows, columns = maps.shape[2:]
    down, across = (torch.arange(rows) + 0.5) * height / rows, (torch.arange(columns) + 0.5) * width / columns
    inside = torch.zeros(len(seeds), rows, columns, dtype=torch.bool)
    for window in windows:
        if window.right > width or window.bottom > height:
            raise CardiganError(f"A window reaches to {window.right}, {window.bottom}: the pictures are {width} wide and {height} high.")
        tall, wide = (down >= window.top) & (down < window.bottom), (across >= window.left) & (across < window.right)
        inside[seeds.index(window.seed)] |= tall[:, None] & wide[None]
    return inside


def _logistic_weights(rows: Places, inside: Float[Tensor, " place"]) -> Float[Tensor, " channel"]:
    rows = rows / rows.std(0).clamp(min=1e-6)
    weights = torch.zeros(rows.shape[1] + 1, requires_grad=True)
    descent = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def cost() -> Tensor:
        descent.zero_grad()
        loss = binary_cross_entropy_with_logits(rows @ weights[:-1] + weights[-1], inside) + WEIGHT * weights[:-1].square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        descent.step(cost)
    return weights.detach()[:-1]
