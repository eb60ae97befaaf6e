"""The metrics of a report, computed from inputs that are cached and lazy."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Literal

import torch
from torch import Tensor

from cardigan.errors import CardiganError
from cardigan.files.disk_cache import cache_key, load_or_compute_tensors
from cardigan.metrics.class_histogram import (
    NUM_STACKED_MODES,
    class_counts,
    class_kl,
    classifier_score,
    num_covered,
    stacked_modes,
    uniform_counts,
)
from cardigan.metrics.features import FeatureExtractor
from cardigan.metrics.kernel import kernel_distance_with_error
from cardigan.metrics.neighbors import nearest_samples, nn_errors, training_neighbors
from cardigan.metrics.parzen import parzen_log_likelihood
from cardigan.metrics.prdc import prdc
from cardigan.metrics.protocol import MetricValue
from cardigan.metrics.reference import NUM_VALIDATION, Reference, Sampler, holdout_sampler, train_sampler
from cardigan.metrics.statistics import (
    bootstrap_error,
    frechet_with_error,
    gaussian_from_moments,
    jackknife,
    mean_with_error,
    streaming_moments,
)
from cardigan.shapes import Labels, Pixels

MAX_SAMPLES_IN_MEMORY = 100_000
"""Maximum samples in memory. Only `nn_error` streams more."""
MAX_PAIRWISE = 10_000
"""Maximum samples for metrics over all pairs of images."""
CHUNK_SIZE = 10_000
DUPLICATE_QUANTILE = 0.001
"""A sample is a duplicate if its nearest sample is closer than this quantile of the same distance among real images."""
NUM_WORST = 32


@dataclass
class MetricInputs:
    """Samples, real images and their features, each computed on first use."""

    sampler: Sampler
    reference: Reference
    extractor: FeatureExtractor
    num_samples: int
    worst: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    def chunks(self) -> Iterator[tuple[Pixels, Labels | None]]:
        """Yield all samples in chunks of at most `CHUNK_SIZE`."""
        for start in range(0, self.num_samples, CHUNK_SIZE):
            yield self.sampler.draw(start, min(start + CHUNK_SIZE, self.num_samples))

    @cached_property
    def samples(self) -> tuple[Pixels, Labels | None]:
        if self.num_samples > MAX_SAMPLES_IN_MEMORY:
            raise CardiganError(
                f"{self.num_samples:,} samples: expected at most {MAX_SAMPLES_IN_MEMORY:,}; only nn_error takes more."
            )
        chunks = list(self.chunks())
        labels = [chunk[1] for chunk in chunks if chunk[1] is not None]
        return torch.cat([pixels for pixels, _ in chunks]), torch.cat(labels) if labels else None

    @property
    def pixels(self) -> Pixels:
        return self.samples[0]

    @cached_property
    def features(self) -> Tensor:
        return self.extractor.features(self.pixels)

    @cached_property
    def reference_features(self) -> Tensor:
        extractor = self.extractor
        key = cache_key("features", self.reference.sha256, extractor.name, extractor.weights_sha256, extractor.resize)
        return load_or_compute_tensors(key, lambda: {"features": extractor.features(self.reference.holdout)})[
            "features"
        ]

    @cached_property
    def logits(self) -> Tensor:
        if self.extractor.logits is None:
            raise CardiganError(
                f"The extractor {self.extractor.name!r} has no classifier: choose another with --extractor."
            )
        return self.extractor.logits(self.features)

    @cached_property
    def class_counts(self) -> Tensor:
        """Number of samples per class, as predicted by the extractor's classifier."""
        if self.logits.shape[1] != self.reference.num_classes:
            raise CardiganError(
                f"{self.extractor.name!r} has {self.logits.shape[1]} classes and the data has "
                f"{self.reference.num_classes}: a class histogram needs a classifier of the data's classes."
            )
        return class_counts(self.logits.argmax(1), self.reference.num_classes)

    def metric_value(
        self,
        value: tuple[float, float],
        error_method: str,
        num_samples: int | None = None,
        num_reference: int | None = None,
    ) -> MetricValue:
        num_real = len(self.reference.holdout) if num_reference is None else num_reference
        return MetricValue(*value, error_method, self.num_samples if num_samples is None else num_samples, num_real)


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
        name: inputs.metric_value(mean_with_error(getattr(per_image, name)), error_methods[name], *counts)
        for name in error_methods
    }


def class_metrics(inputs: MetricInputs) -> dict[str, MetricValue]:
    counts = inputs.class_counts
    holdout_counts = class_counts(inputs.reference.holdout_labels, inputs.reference.num_classes)
    return _histogram_metrics(inputs, counts, holdout_counts, "class_kl", "classes_covered")


def classifier_score_metrics(inputs: MetricInputs) -> dict[str, MetricValue]:
    value = jackknife(inputs.logits, classifier_score)
    return {
        inputs.extractor.classifier_score_name: inputs.metric_value(value, "jackknife over samples", num_reference=0)
    }


def stacked_mnist_metrics(inputs: MetricInputs) -> dict[str, MetricValue]:
    if inputs.reference.num_classes != NUM_STACKED_MODES:
        raise CardiganError(
            f"The data has {inputs.reference.num_classes} classes: only stacked MNIST has {NUM_STACKED_MODES} modes."
        )
    counts = class_counts(stacked_modes(inputs.pixels), NUM_STACKED_MODES)
    return _histogram_metrics(inputs, counts, uniform_counts(NUM_STACKED_MODES), "mode_kl", "modes_covered")


def nn_error_metrics(inputs: MetricInputs) -> dict[str, MetricValue]:
    def labeled_chunks() -> Iterator[tuple[Pixels, Labels]]:
        for pixels, labels in (
            iter([inputs.samples]) if inputs.num_samples <= MAX_SAMPLES_IN_MEMORY else inputs.chunks()
        ):
            if labels is None:
                raise CardiganError(
                    "The samples have no labels to fit a classifier on: train a generator with --conditional."
                )
            yield pixels, labels

    reference = inputs.reference
    errors = nn_errors(reference.holdout, reference.holdout_labels, labeled_chunks())
    return {"nn_error": inputs.metric_value(mean_with_error(errors), "real images")}


def memorization_metrics(inputs: MetricInputs) -> dict[str, MetricValue]:
    reference, samples = inputs.reference, inputs.pixels[:MAX_PAIRWISE]
    neighbors = training_neighbors(samples, reference.train)
    sample_neighbors = nearest_samples(samples)
    real_sampler = train_sampler(reference)
    real_sampler = (
        real_sampler if (real_sampler.num_available or 0) >= len(samples) else holdout_sampler(reference)
    )  # the training set is small
    duplicate_distance = load_or_compute_tensors(
        cache_key("duplicate-threshold", reference.sha256, str(len(samples)), str(DUPLICATE_QUANTILE)),
        lambda: {
            "threshold": nearest_samples(real_sampler.draw(0, len(samples))[0]).distance.quantile(DUPLICATE_QUANTILE)
        },
    )["threshold"]
    inputs.worst["memorized"] = neighbors.worst(NUM_WORST)
    inputs.worst["duplicates"] = [
        (int(sample), int(sample_neighbors.index[sample]))
        for sample in sample_neighbors.distance.argsort(stable=True)[:NUM_WORST]
    ]
    values = {
        "authenticity": (neighbors.authentic, len(reference.train)),
        "nearest_train_distance": (neighbors.nearest.distance, len(reference.train)),
        "duplicate_rate": ((sample_neighbors.distance < duplicate_distance).double(), 0),
    }
    return {
        name: inputs.metric_value(mean_with_error(per_sample), "samples", len(samples), num_reference)
        for name, (per_sample, num_reference) in values.items()
    }


def parzen_metrics(inputs: MetricInputs) -> dict[str, MetricValue]:
    samples, reference = inputs.pixels[:MAX_PAIRWISE], inputs.reference
    value, error, _ = parzen_log_likelihood(samples, reference.train[-NUM_VALIDATION:], reference.holdout)
    return {"parzen_log_likelihood": inputs.metric_value((value, error), "real images", len(samples))}


def _histogram_metrics(
    inputs: MetricInputs, counts: Tensor, reference_counts: Tensor, kl_name: str, covered_name: str
) -> dict[str, MetricValue]:
    kl = partial(class_kl, reference=reference_counts)
    statistics: dict[str, Callable[[Tensor], float]] = {kl_name: kl, covered_name: num_covered}
    seed = inputs.sampler.seed
    return {
        name: inputs.metric_value(
            (float(statistic(counts)), bootstrap_error(counts, statistic, seed)),
            "bootstrap of class counts",
            num_reference=int(reference_counts.sum()),
        )
        for name, statistic in statistics.items()
    }


@dataclass(frozen=True)
class MetricGroup:
    """Metrics that are computed together."""

    compute: Callable[[MetricInputs], dict[str, MetricValue]]
    baseline: Literal["train", "holdout"] = "train"
    """Real images that replace the samples for the real baseline: the training images, or the holdout if the metric
    measures copying."""


METRICS = {
    "frechet": MetricGroup(frechet_metrics),
    "kernel": MetricGroup(kernel_metrics),
    "prdc": MetricGroup(prdc_metrics),
    "classes": MetricGroup(class_metrics),
    "classifier_score": MetricGroup(classifier_score_metrics),
    "nn_error": MetricGroup(nn_error_metrics),
    "memorization": MetricGroup(memorization_metrics, baseline="holdout"),
    "parzen": MetricGroup(parzen_metrics),
    "stacked_mnist": MetricGroup(stacked_mnist_metrics),
}
