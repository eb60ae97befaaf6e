"""What metrics are computed from: samples, real images and their features, cached and lazy."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from cardigan.errors import CardiganError
from cardigan.files.disk_cache import cache_key, load_or_compute_tensors
from cardigan.metrics.class_histogram import class_counts
from cardigan.metrics.features import FeatureExtractor
from cardigan.metrics.protocol import Direction, MetricValue
from cardigan.metrics.reference import Reference, Sampler
from cardigan.plugins import plugin_versions
from cardigan.shapes import Labels, Pixels

MAX_SAMPLES_IN_MEMORY = 100_000
"""Maximum samples in memory. Only `nn_error` streams more."""
CHUNK_SIZE = 10_000


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

    def labeled_chunks(self) -> Iterator[tuple[Pixels, Labels]]:
        """Yield all samples in chunks, of any number of samples. Raises CardiganError if they have no labels."""
        for pixels, labels in iter([self.samples]) if self.num_samples <= MAX_SAMPLES_IN_MEMORY else self.chunks():
            if labels is None:
                raise CardiganError(
                    "The samples have no labels to fit a classifier on: train a generator with --conditional, and "
                    "without data.clusters."
                )
            yield pixels, labels

    @property
    def pixels(self) -> Pixels:
        return self.samples[0]

    @cached_property
    def features(self) -> Tensor:
        """The extractor's features of the samples."""
        return self.extractor.features(self.pixels)

    @cached_property
    def reference_features(self) -> Tensor:
        """The extractor's features of the real images in `reference.holdout`."""
        extractor = self.extractor
        key = cache_key(
            "features",
            self.reference.sha256,
            extractor.name,
            extractor.weights_sha256,
            extractor.resize,
            *plugin_versions(),
        )
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
        value: tuple[float, float | None],
        error_method: str,
        num_samples: int | None = None,
        num_reference: int | None = None,
        better: Direction = "lower",
    ) -> MetricValue:
        """Return a value and its standard error, with the numbers of samples and of real images it is computed from.

        These default to all samples and the holdout.
        """
        num_real = len(self.reference.holdout) if num_reference is None else num_reference
        num_samples = self.num_samples if num_samples is None else num_samples
        return MetricValue(*value, error_method, num_samples, num_real, better=better)
