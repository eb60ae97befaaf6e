"""The metrics of `cardigan evaluate` by name: each turns `MetricInputs` into one or more values."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from cardigan.errors import CardiganError
from cardigan.files.disk_cache import cache_key, load_or_compute_tensors
from cardigan.metrics.checkerboard import nyquist_energies
from cardigan.metrics.class_histogram import (
    NUM_STACKED_MODES,
    class_counts,
    class_kl,
    classifier_score,
    num_covered,
    stacked_modes,
    uniform_counts,
)
from cardigan.metrics.inputs import CHUNK_SIZE, MetricInputs
from cardigan.metrics.kernel import kernel_distance_with_error
from cardigan.metrics.neighbors import nearest_samples, nn_errors, training_neighbors
from cardigan.metrics.parzen import parzen_log_likelihood
from cardigan.metrics.prdc import prdc
from cardigan.metrics.protocol import Direction, MetricValue
from cardigan.metrics.reference import NUM_VALIDATION, Reference, array_sampler, holdout_sampler, train_sampler
from cardigan.metrics.sliced_wasserstein import num_compared, sliced_wasserstein
from cardigan.metrics.statistics import (
    bootstrap_error,
    frechet_with_error,
    gaussian_from_moments,
    jackknife,
    mean_with_error,
    streaming_moments,
)
from cardigan.metrics.variety import intra_cluster_distance, pairwise_distance
from cardigan.shapes import Pixels

MAX_PAIRWISE = 10_000
"""Maximum samples for metrics over all pairs of images."""
DUPLICATE_QUANTILE = 0.001
"""A sample is a duplicate if its nearest sample is closer than this quantile of the same distance among real images."""
NUM_WORST = 32
MAX_VARIETY_SAMPLES = 2_000
MAX_CLUSTERS = 200
"""The intra-cluster distance is computed for at most this many training images: of more, few have two samples."""


def frechet_metrics(inputs: MetricInputs) -> dict[str, MetricValue]:
    reference = gaussian_from_moments(streaming_moments(inputs.reference_features.split(CHUNK_SIZE)))
    return {
        inputs.extractor.distance_name: inputs.metric_value(
            frechet_with_error(inputs.features, reference), "jackknife over samples"
        )
    }


def kernel_metrics(inputs: MetricInputs) -> dict[str, MetricValue]:
    value = kernel_distance_with_error(inputs.features, inputs.reference_features, inputs.sampler.seed)
    return {inputs.extractor.kernel_distance_name: inputs.metric_value(value, "disjoint subsets")}


def sliced_wasserstein_metrics(inputs: MetricInputs) -> dict[str, MetricValue]:
    distances = sliced_wasserstein(inputs.pixels, inputs.reference.holdout, inputs.sampler.seed)
    count = num_compared(inputs.pixels, inputs.reference.holdout)
    return {
        f"swd_{side}": inputs.metric_value(value, "jackknife over groups of images", count, count)
        for side, value in distances.items()
    }


def checkerboard_metrics(inputs: MetricInputs) -> dict[str, MetricValue]:
    energies = nyquist_energies(inputs.pixels)
    return {
        "nyquist_energy": inputs.metric_value(mean_with_error(energies), "samples", num_reference=0, better="neither")
    }


def prdc_metrics(inputs: MetricInputs) -> dict[str, MetricValue]:
    per_image = prdc(inputs.reference_features[:MAX_PAIRWISE], inputs.features[:MAX_PAIRWISE])
    counts = (len(per_image.precision), len(per_image.recall))
    error_methods = {
        "precision": "samples",
        "recall": "real images",
        "density": "samples",
        "coverage": "real images",
    }
    return {
        name: inputs.metric_value(
            mean_with_error(getattr(per_image, name)), error_methods[name], *counts, better="higher"
        )
        for name in error_methods
    }


def variety_metrics(inputs: MetricInputs) -> dict[str, MetricValue]:
    features = inputs.features[:MAX_VARIETY_SAMPLES]
    values = {
        "pairwise_distance": inputs.metric_value(
            pairwise_distance(features), "samples", len(features), num_reference=0, better="neither"
        )
    }
    train = inputs.reference.train
    if len(train) <= MAX_CLUSTERS:
        centers = inputs.extractor.features(train)
        values["intra_cluster_distance"] = inputs.metric_value(
            intra_cluster_distance(features, centers), "clusters", len(features), len(train), better="higher"
        )
    return values


def class_metrics(inputs: MetricInputs) -> dict[str, MetricValue]:
    counts = inputs.class_counts
    holdout_counts = class_counts(inputs.reference.holdout_labels, inputs.reference.num_classes)
    return _histogram_metrics(inputs, counts, holdout_counts, "class_kl", "classes_covered")


def classifier_score_metrics(inputs: MetricInputs) -> dict[str, MetricValue]:
    value = jackknife(inputs.logits, classifier_score)
    return {
        inputs.extractor.classifier_score_name: inputs.metric_value(
            value, "jackknife over samples", num_reference=0, better="higher"
        )
    }


def stacked_mnist_metrics(inputs: MetricInputs) -> dict[str, MetricValue]:
    if inputs.reference.num_classes != NUM_STACKED_MODES:
        raise CardiganError(
            f"The data has {inputs.reference.num_classes} classes: only stacked MNIST has {NUM_STACKED_MODES} modes."
        )
    counts = class_counts(stacked_modes(inputs.pixels), NUM_STACKED_MODES)
    return _histogram_metrics(inputs, counts, uniform_counts(NUM_STACKED_MODES), "mode_kl", "modes_covered")


def nn_error_metrics(inputs: MetricInputs) -> dict[str, MetricValue]:
    reference = inputs.reference
    errors = nn_errors(reference.holdout, reference.holdout_labels, inputs.labeled_chunks())
    return {"nn_error": inputs.metric_value(mean_with_error(errors), "real images")}


def memorization_metrics(inputs: MetricInputs) -> dict[str, MetricValue]:
    reference, samples = inputs.reference, inputs.pixels[:MAX_PAIRWISE]
    neighbors = training_neighbors(samples, reference.train)
    sample_neighbors = nearest_samples(samples)
    group_distances, duplicate_distance = _duplicate_distances(samples, sample_neighbors.distance, reference)
    inputs.worst["memorized"] = neighbors.worst(NUM_WORST)
    inputs.worst["duplicates"] = [
        (int(sample), int(sample_neighbors.index[sample]))
        for sample in sample_neighbors.distance.argsort(stable=True)[:NUM_WORST]
    ]
    values: dict[str, tuple[Tensor, int, Direction]] = {
        "authenticity": (neighbors.authentic, len(reference.train), "higher"),
        "nearest_train_distance": (neighbors.nearest.distance, len(reference.train), "neither"),
        "duplicate_rate": ((group_distances < duplicate_distance).double(), 0, "lower"),
    }
    return {
        name: inputs.metric_value(mean_with_error(per_sample), "samples", len(per_sample), num_reference, better)
        for name, (per_sample, num_reference, better) in values.items()
    }


def _duplicate_distances(
    samples: Pixels, distances: Float[Tensor, " sample"], reference: Reference
) -> tuple[Float[Tensor, " sample"], Tensor]:
    """Return each sample's distance to its nearest other one, and the distance below which it is a duplicate.

    The threshold needs as many real images as samples, because the nearest of more images is nearer. Where neither the
    training nor the held-out images are as many, samples are compared within groups of as many as there are.
    """
    choices = (train_sampler(reference), holdout_sampler(reference), array_sampler(reference.train))
    enough = [real for real in choices if (real.num_available or 0) >= len(samples)]
    real = enough[0] if enough else max(choices, key=lambda real: real.num_available or 0)
    available = real.num_available or 0
    size = min(len(samples), available)
    groups = samples[: len(samples) // size * size].split(size)
    threshold = load_or_compute_tensors(
        cache_key("duplicate-threshold", reference.sha256, str(size), str(available), str(DUPLICATE_QUANTILE)),
        lambda: {"threshold": nearest_samples(real.draw(0, size)[0]).distance.quantile(DUPLICATE_QUANTILE)},
    )["threshold"]
    if size == len(samples):
        return distances, threshold
    return torch.cat([nearest_samples(group).distance for group in groups]), threshold


def parzen_metrics(inputs: MetricInputs) -> dict[str, MetricValue]:
    samples, reference = inputs.pixels[:MAX_PAIRWISE], inputs.reference
    value, error, _ = parzen_log_likelihood(samples, reference.train[-NUM_VALIDATION:], reference.holdout)
    return {"parzen_log_likelihood": inputs.metric_value((value, error), "real images", len(samples), better="higher")}


def _histogram_metrics(
    inputs: MetricInputs, counts: Tensor, reference_counts: Tensor, kl_name: str, covered_name: str
) -> dict[str, MetricValue]:
    kl = partial(class_kl, reference=reference_counts)
    statistics: dict[str, tuple[Callable[[Tensor], float], Direction]] = {
        kl_name: (kl, "lower"),
        covered_name: (num_covered, "higher"),
    }
    seed = inputs.sampler.seed
    return {
        name: inputs.metric_value(
            (float(statistic(counts)), bootstrap_error(counts, statistic, seed)),
            "bootstrap of class counts",
            num_reference=int(reference_counts.sum()),
            better=better,
        )
        for name, (statistic, better) in statistics.items()
    }


@dataclass(frozen=True)
class MetricGroup:
    """Metrics that are computed together."""

    compute: Callable[[MetricInputs], dict[str, MetricValue]]
    """Returns the values by name. Each name must be the group's own. Raises CardiganError if the inputs do not
    suffice."""
    baseline: Literal["train", "holdout"] = "train"
    """Real images that replace the samples for the real baseline: the training images, or the holdout if the metric
    measures copying."""
    reads_validation: bool = False
    """Whether it chooses something on the last training images, which its real baseline must not contain then."""


METRICS: dict[str, MetricGroup] = {
    "frechet": MetricGroup(frechet_metrics),
    "kernel": MetricGroup(kernel_metrics),
    "sliced_wasserstein": MetricGroup(sliced_wasserstein_metrics),
    "checkerboard": MetricGroup(checkerboard_metrics),
    "prdc": MetricGroup(prdc_metrics),
    "classes": MetricGroup(class_metrics),
    "classifier_score": MetricGroup(classifier_score_metrics),
    "nn_error": MetricGroup(nn_error_metrics),
    "variety": MetricGroup(variety_metrics, baseline="holdout"),
    "memorization": MetricGroup(memorization_metrics, baseline="holdout"),
    "parzen": MetricGroup(parzen_metrics, reads_validation=True),
    "stacked_mnist": MetricGroup(stacked_mnist_metrics),
}
