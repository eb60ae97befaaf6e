"""Sheets that show what the two players' features are: what excites D's, and what G draws without some of its own.

The DCGAN paper's figures 5 and 6 (arXiv:1511.06434, sections 6.1 and 6.2), for any network and size. Writes no file.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cardigan.errors import CardiganError
from cardigan.explore.game import guided_backpropagation, responses
from cardigan.explore.layers import generator_layers, layer_at, seen
from cardigan.explore.paths import latents_of
from cardigan.explore.removal import removed
from cardigan.explore.views import Style, labels_for
from cardigan.run.players import Players
from cardigan.run.snapshot import Snapshot
from cardigan.shapes import Labels, Pixels

Row = UInt8[Tensor, "_ channel height width"]
FEATURES, EXAMPLES = 8, 6
REMOVED = 8
"""Rows with fewer and fewer channels, at most."""


def feature_rows(players: Players, pixels: Pixels, labels: Labels | None) -> list[Row]:
    """Return a row for each of eight of D's last features: the six pictures that excite it most, then what in each of them does.

    Chosen are the features that differ most from picture to picture, each beside the mean of its own strength.
    """
    strength = responses(players, pixels, labels)
    varied = strength.std(0) / strength.abs().mean(0).clamp(min=1e-6)
    rows = []
    for feature in varied.argsort(descending=True, stable=True)[:FEATURES].tolist():
        best = strength[:, feature].argsort(descending=True, stable=True)[:EXAMPLES]
        chosen = pixels[best]
        gradient = guided_backpropagation(players, chosen, None if labels is None else labels[best], feature)
        rows.append(torch.cat([chosen, shades(gradient)]))
    return rows


def shades(gradient: Float[Tensor, "batch channel height width"]) -> Pixels:
    """Return gradients as pictures around mid-grey, each by its own largest value; a fourth channel, transparency, is opaque."""
    level = gradient / gradient.flatten(1).abs().amax(1).clamp(min=1e-12)[:, None, None, None]
    picture = (127.5 + 127.5 * level).round().to(torch.uint8)
    if picture.shape[1] == 4:
        picture[:, 3] = 255
    return picture


def removal_rows(snapshot: Snapshot, seeds: list[int], layer: int | None = None) -> list[Row]:
    """Return the pictures of some seeds, and below them the same without the channel of a layer that matters most, the two, four, eight, ... that do.

    The layer is the middle one unless one is named; a channel matters as much as the pictures change without it alone.
    """
    layers = generator_layers(snapshot.generator)
    if not layers:
        raise CardiganError("This generator has no layer between z and the picture, so no feature can be removed: give a deeper one.")
    layer = len(layers) // 2 if layer is None else layer
    z, labels = latents_of(snapshot.config, seeds), labels_for(snapshot, seeds, Style().label)
    with seen([layer_at(layers, layer)]) as maps:
        whole = removed(snapshot, z, labels, [], layer)
    found = [removed(snapshot, z, labels, [channel], layer) for channel in range(maps[0].shape[1])]
    changes = torch.stack([(without.float() - whole.float()).abs().mean() for without in found])
    order = changes.argsort(descending=True, stable=True).tolist()
    counts = [2**power for power in range(REMOVED) if 2**power <= max(1, len(order) // 2)]
    return [whole, *(removed(snapshot, z, labels, order[:count], layer) for count in counts)]
