"""How far apart samples are in feature space: all of them, and those that resemble the same training image.

The second is the intra-cluster distance of Ojha et al. 2021 (arXiv:2104.06820, section 4.2), with an extractor's
features in place of LPIPS.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from cardigan.errors import CardiganError
from cardigan.metrics.distances import squared_distances

Features = Float[Tensor, "image feature"]


def pairwise_distance(features: Features) -> tuple[float, float]:
    """Return the mean Euclidean distance between two images, and its standard error over images.

    Raises CardiganError for fewer than two images.
    """
    if len(features) < 2:
        raise CardiganError(f"{len(features)} image: a distance between two needs at least two.")
    means = _distances(features).sum(dim=1) / (len(features) - 1)
    # Each image is in many pairs: the variance of a U-statistic of order 2 is 4 times that of an image's own mean.
    return float(means.mean()), float(2 * means.std() / len(features) ** 0.5)


def intra_cluster_distance(features: Features, centers: Float[Tensor, "center feature"]) -> tuple[float, float]:
    """Return the mean distance between two samples of a cluster, averaged over clusters, with its error over clusters.

    A cluster is the samples that are nearest to the same center, which is a training image. 0 means that every sample
    copies one. Raises CardiganError where fewer than two clusters have two samples.
    """
    cluster_of = squared_distances(features.double(), centers.double()).argmin(dim=1)
    means = [
        pairwise_distance(features[cluster_of == number])[0]
        for number in cluster_of.unique().tolist()
        if int((cluster_of == number).sum()) > 1
    ]
    if len(means) < 2:
        raise CardiganError(
            f"{len(features)} samples and {len(centers)} training images: fewer than two training images have two "
            "samples near them, so there is no distance within clusters. Take more samples."
        )
    values = torch.tensor(means, dtype=torch.float64)
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def _distances(features: Features) -> Float[Tensor, "image image"]:
    distances = squared_distances(features.double(), features.double()).sqrt()
    return distances.fill_diagonal_(0.0)
