"""Sheets that show what the two players' features are: what excites D's, and what G draws without some of its own.

The DCGAN paper's figures 5 and 6 (arXiv:1511.06434, sections 6.1 and 6.2), for any network and size. Writes no file.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cardigan.errors import CardiganError
from cardigan.explore.layers import generator_layers, layer_at, record_activations
from cardigan.explore.removal import ablate_channels
from cardigan.explore.saliency import guided_backpropagation, max_activations
from cardigan.explore.views import SamplingOptions, labels_for
from cardigan.latents.interpolation import point_latents
from cardigan.models.run_networks import RunNetworks
from cardigan.models.snapshot import Snapshot
from cardigan.shapes import Labels, Pixels

ImageRow = UInt8[Tensor, "_ channel height width"]
NUM_FEATURES, NUM_EXAMPLES = 8, 6
MAX_ABLATION_ROWS = 8
"""Rows with fewer and fewer channels, at most."""


def feature_rows(networks: RunNetworks, pixels: Pixels, labels: Labels | None) -> list[ImageRow]:
    """Return a row for each of eight of D's last features: the six pictures that excite it most, then what in each of them does.

    Chosen are the features that differ most from picture to picture, each beside the mean of its own strength.
    """
    activations = max_activations(networks, pixels, labels)
    relative_std = activations.std(0) / activations.abs().mean(0).clamp(min=1e-6)
    rows = []
    for feature in relative_std.argsort(descending=True, stable=True)[:NUM_FEATURES].tolist():
        best = activations[:, feature].argsort(descending=True, stable=True)[:NUM_EXAMPLES]
        examples = pixels[best]
        gradient = guided_backpropagation(networks, examples, None if labels is None else labels[best], feature)
        rows.append(torch.cat([examples, gradient_images(gradient)]))
    return rows


def gradient_images(gradient: Float[Tensor, "batch channel height width"]) -> Pixels:
    """Return gradients as pictures around mid-grey, each by its own largest value; a fourth channel, transparency, is opaque."""
    level = gradient / gradient.flatten(1).abs().amax(1).clamp(min=1e-12)[:, None, None, None]
    image = (127.5 + 127.5 * level).round().to(torch.uint8)
    if image.shape[1] == 4:
        image[:, 3] = 255
    return image


def ablation_rows(snapshot: Snapshot, seeds: list[int], layer: int | None = None) -> list[ImageRow]:
    """Return the pictures of some seeds, and below them the same without the channel of a layer that matters most, the two, four, eight, ... that do.

    The layer is the middle one unless one is named; a channel matters as much as the pictures change without it alone.
    """
    layers = generator_layers(snapshot.generator)
    if not layers:
        raise CardiganError(
            "This generator has no layer between z and the picture, so no feature can be removed: give a deeper one."
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
