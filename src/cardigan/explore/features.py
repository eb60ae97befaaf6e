"""Uses of D's features beyond training: a linear classifier and an outlier score.

Reads one discriminator; opens no files.
"""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, cross_entropy, leaky_relu

from cardigan.errors import CardiganError
from cardigan.explore.layers import check_not_packed, discriminator_layers
from cardigan.models.run_networks import RunNetworks
from cardigan.nets.activations import record_activations
from cardigan.nets.dcgan import DcganDiscriminator
from cardigan.nets.projected import ProjectedDiscriminator
from cardigan.pixels import decode
from cardigan.shapes import Pixels

Features = Float[Tensor, "_ feature"]
Classes = Int64[Tensor, " _"]
CHUNK_SIZE = 500
NUM_NEIGHBORS = 5
"""Reference images that each image is compared with."""
MIN_SPACING_RATIO = 0.1
"""Lower bound of the spacing of reference images, relative to the median. Duplicates would give infinite scores."""
L2_WEIGHTS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Candidate L2 weights of the linear classifier."""


def discriminator_features(networks: RunNetworks, pixels: Pixels) -> Float[Tensor, "batch feature"]:
    """Return D's features, one row per image, fp32 on the CPU.

    For `dcgan` these are all layers, max-pooled to 4x4 (arXiv:1511.06434, section 5.1), for `projected` the last layer
    of each head, and for other networks the last layer, pooled likewise. Raises CardiganError for a D that receives the
    class as extra input planes, because its features depend on the class, and for a D with pac > 1.
    """
    discriminator, classes = networks.discriminator, networks.snapshot.spec.num_classes
    check_not_packed(discriminator)
    if classes and networks.snapshot.config.discriminator.conditioning == "one-hot":
        raise CardiganError(
            "This discriminator receives the class together with the image, so its features depend on the class: "
            "give another run."
        )
    layers = discriminator_layers(discriminator)
    feature_layers = layers if isinstance(discriminator, DcganDiscriminator | ProjectedDiscriminator) else layers[-1:]
    device = next(discriminator.parameters()).device
    rows = []
    with torch.no_grad(), record_activations(feature_layers) as maps:
        for chunk in pixels.split(CHUNK_SIZE):
            maps.clear()
            discriminator(
                decode(chunk).to(device), torch.zeros(len(chunk), dtype=torch.long, device=device) if classes else None
            )
            rows.append(torch.cat([_pool_maps(layer_maps.cpu()) for layer_maps in maps], dim=1).float())
    return torch.cat(rows)


def _pool_maps(maps: Tensor) -> Tensor:
    """Return a layer's outputs as the next layer receives them, one row per image."""
    if maps.dim() < 4:
        return maps.flatten(1)
    rectified = leaky_relu(maps, 0.2)
    return (adaptive_max_pool2d(rectified, 4) if min(maps.shape[2:]) > 4 else rectified).flatten(1)


def local_outlier_factor(reference: Features, query: Features, same_rows: bool = False) -> Float[Tensor, " _"]:
    """Return the local outlier factor of each query row: about 1 for inliers, larger for outliers.

    It is the mean distance to the five nearest reference rows, divided by the mean of the same quantity of those
    neighbors (Breunig et al., SIGMOD 2000, definition 7, with plain instead of reachability distances). Features are
    standardized on the reference. Plain distances would rank simple images as inliers and detailed ones as outliers.
    With `same_rows` the query rows are the reference rows in the same order, and no row is its own neighbor.
    Raises CardiganError for too few reference rows.
    """
    if len(reference) < NUM_NEIGHBORS + 1:
        raise CardiganError(
            f"Only {len(reference)} reference images: expected at least {NUM_NEIGHBORS + 1} to compare with."
        )
    mean, scale = reference.mean(0), reference.std(0).clamp(min=1e-3)
    reference, query = (reference - mean) / scale, (query - mean) / scale
    reference_distances, neighbors = _nearest_neighbors(reference, reference, same_rows=True)
    reference_distances = reference_distances.clamp(min=MIN_SPACING_RATIO * float(reference_distances.median())).clamp(
        min=1e-6
    )
    query_distances, neighbors = (
        (reference_distances, neighbors) if same_rows else _nearest_neighbors(query, reference, same_rows=False)
    )
    return query_distances / reference_distances[neighbors].mean(1)


def _nearest_neighbors(
    rows: Features, reference: Features, same_rows: bool
) -> tuple[Float[Tensor, " _"], Int64[Tensor, "_ nearest"]]:
    """Return each row's mean distance to its nearest reference rows, and their indices."""
    nearest = []
    for start in range(0, len(rows), CHUNK_SIZE):
        distances = torch.cdist(rows[start : start + CHUNK_SIZE], reference)
        if same_rows:
            row_indices = torch.arange(len(distances))
            distances[row_indices, start + row_indices] = torch.inf
        nearest.append(distances.topk(NUM_NEIGHBORS, largest=False))
    return torch.cat([chunk.values.mean(1) for chunk in nearest]), torch.cat([each.indices for each in nearest])


def linear_probe_error(
    train: Features, labels: Classes, test: Features, test_labels: Classes, classes: int = 10
) -> float:
    """Return the test error, 0..1, of multinomial logistic regression.

    The L2 weight is selected on a validation set: a fifth of the training images.
    """
    mean, scale = train.mean(0), train.std(0).clamp(min=1e-3)
    train, test = (train - mean) / scale, (test - mean) / scale
    num_validation = max(1, len(train) // 5)
    errors = [
        _error_rate(
            _fit_logistic_regression(train[num_validation:], labels[num_validation:], weight, classes),
            train[:num_validation],
            labels[:num_validation],
        )
        for weight in L2_WEIGHTS
    ]
    return _error_rate(
        _fit_logistic_regression(train, labels, L2_WEIGHTS[errors.index(min(errors))], classes), test, test_labels
    )


def _fit_logistic_regression(rows: Features, labels: Classes, l2_weight: float, classes: int) -> Tensor:
    coefficients = torch.zeros(rows.shape[1] + 1, classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([coefficients], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (
            cross_entropy(rows @ coefficients[:-1] + coefficients[-1], labels)
            + l2_weight * coefficients[:-1].square().sum()
        )
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return coefficients.detach()


def _error_rate(coefficients: Tensor, rows: Features, labels: Classes) -> float:
    return float(((rows @ coefficients[:-1] + coefficients[-1]).argmax(1) != labels).float().mean())
