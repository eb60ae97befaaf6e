"""Cross-domain correspondence: keeps the variety of the model that a run started from.

Ojha et al. 2021, Few-shot Image Generation via Cross-domain Correspondence (arXiv:2104.06820), equations 1 to 3.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, normalize

from cardigan.shapes import Scalar

MIN_IMAGES = 3
"""Images that are needed: an image's similarity to a single other one has no distribution."""


def correspondence(maps: Sequence[Tensor], start_maps: Sequence[Tensor]) -> Scalar:
    """Return how far the similarities between a batch's images are from those at the start; 0 where they are equal.

    `maps` are the generator's features, [batch, ...] for each layer, and `start_maps` those of the generator at the
    start, for the same latents and classes. For each image, the similarities to all others become a distribution. The
    result is the mean Kullback-Leibler divergence of these distributions, over images and layers (equation 3), in
    nats. Gradients flow into `maps` only.
    """
    divergences = [
        kl_div(_log_similarities(start.detach()), _log_similarities(now), reduction="batchmean", log_target=True)
        for now, start in zip(maps, start_maps, strict=True)
    ]
    return torch.stack(divergences).mean()


def _log_similarities(features: Tensor) -> Float[Tensor, "batch others"]:
    """Return the logarithms of each image's distribution of similarity over the other images (equation 1)."""
    directions = normalize(features.float().flatten(1), dim=1)
    images = torch.arange(len(directions), device=directions.device)[:, None]
    others = images[:-1].T + (images <= images[:-1].T)  # for each image, the numbers of all others
    return log_softmax((directions @ directions.T).gather(1, others), dim=1)
