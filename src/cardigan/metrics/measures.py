"""Each number of a report, from evidence that is gathered once and only if it is asked for.

Knows which number needs what; draws no picture itself and prints nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Literal

import torch
from torch import Tensor

from cardigan.errors import CardiganError
from cardigan.metrics.cache import cached_tensors, content_hash
from cardigan.metrics.features import Extractor
from cardigan.metrics.kernel import kernel_distance_with_error
from cardigan.metrics.manifold import overlap
from cardigan.metrics.modes import STACKED_MODES, class_counts, class_divergence, classifier_score, modes_covered, stacked_classes, uniform_counts
from cardigan.metrics.neighbours import memories, neighbour_errors, repeats
from cardigan.metrics.parzen import parzen_log_likelihood
from cardigan.metrics.protocol import Measure
from cardigan.metrics.reference import VALIDATION, Reference, Sampler, held_out_sampler, training_sampler
from cardigan.metrics.statistics import bootstrap_error, frechet_with_error, gaussian, jackknife, mean_with_error, streamed
from cardigan.shapes import Labels, Pixels

HELD = 100_000
"""Samples that are held in memory at most; only the nearest-neighbour test reads a longer stream."""
SQUARE = 10_000
"""Samples that numbers made from all pairs of pictures look at, at most."""
PART = 10_000
REPEATED = 0.001
"""Samples are called repeated where they are nearer to another one than all but this share of real pictures are."""
WORST = 32


@dataclass
class Evidence:
    """What is known of the samples and the real pictures; each part computed when it is first needed."""

    sampler: Sampler
    reference: Reference
    extractor: Extractor
    num_samples: int
    worst: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    def parts(self) -> Iterator[tuple[Pixels, Labels | None]]:
        """Yield all samples, however many, at most `PART` at a time."""
        for start in range(0, self.num_samples, PART):
            yield self.sampler.draw(start, min(start + PART, self.num_samples))

    @cached_property
    def drawn(self) -> tuple[Pixels, Labels | None]:
        if self.num_samples > HELD:
            raise CardiganError(f"{self.num_samples:,} samples: this number holds at most {HELD:,}; neighbour_error alone takes more.")
        parts = list(self.parts())
        labels = [part[1] for part in parts if part[1] is not None]
        return torch.cat([part[0] for part in parts]), torch.cat(labels) if labels else None

    @property
    def pixels(self) -> Pixels:
        return self.drawn[0]

    @cached_property
    def features(self) -> Tensor:
        return self.extractor.features(self.pixels)

    @cached_property
    def reference_features(self) -> Tensor:
        extractor = self.extractor
        key = content_hash("features", self.reference.identity, extractor.name, extractor.identity, extractor.resizer)
        return cached_tensors(key, lambda: {"features": extractor.features(self.reference.held_out)})["features"]

    @cached_property
    def logits(self) -> Tensor:
        if self.extractor.logits is None:
            raise CardiganError(f"The extractor {self.extractor.name!r} has no classifier: choose another with --extractor.")
        return self.extractor.logits(self.features)

    @cached_property
    def counts(self) -> Tensor:
        """How many samples the extractor's classifier puts into each class of the data."""
        if self.logits.shape[1] != self.reference.classes:
            raise CardiganError(
                f"The classes of {self.extractor.name!r} ({self.logits.shape[1]}) are not the data's ({self.reference.classes}): "
                "a class histogram needs a classifier of the data's own classes."
            )
        return class_counts(self.logits.argmax(1), self.reference.classes)

    def measure(self, value: tuple[float, float], error_over: str, num_samples: int | None = None, num_reference: int | None = None) -> Measure:
        real = len(self.reference.held_out) if num_reference is None else num_reference
        return Measure(*value, error_over, self.num_samples if num_samples is None else num_samples, real)


def distance(evidence: Evidence) -> dict[str, Measure]:
    reference = gaussian(streamed(evidence.reference_features.split(PART)))
    return {evidence.extractor.distance: evidence.measure(frechet_with_error(evidence.features, reference), "blocks of samples (jackknife)")}


def kernel(evidence: Evidence) -> dict[str, Measure]:
    value = kernel_distance_with_error(evidence.features, evidence.reference_features, evidence.sampler.seed)
    return {evidence.extractor.kernel_distance: evidence.measure(value, "disjoint subsets")}


def manifolds(evidence: Evidence) -> dict[str, Measure]:
    found = overlap(evidence.reference_features[:SQUARE], evidence.features[:SQUARE])
    counts = (len(found.precision), len(found.recall))
    over = {"precision": "samples", "recall": "real pictures", "density": "samples", "coverage": "real pictures"}
    return {name: evidence.measure(mean_with_error(getattr(found, name)), over[name], *counts) for name in over}


def classes(evidence: Evidence) -> dict[str, Measure]:
    counts = evidence.counts
    data = class_counts(evidence.reference.held_out_labels, evidence.reference.classes)
    return _histogram(evidence, counts, data, "class_divergence", "modes_covered")


def score(evidence: Evidence) -> dict[str, Measure]:
    value = jackknife(evidence.logits, classifier_score)
    return {evidence.extractor.classifier_score: evidence.measure(value, "blocks of samples (jackknife)", num_reference=0)}


def stacked(evidence: Evidence) -> dict[str, Measure]:
    if evidence.reference.classes != STACKED_MODES:
        raise CardiganError(f"The data has {evidence.reference.classes} classes: only stacked MNIST has {STACKED_MODES} modes to count.")
    counts = class_counts(stacked_classes(evidence.pixels), STACKED_MODES)
    return _histogram(evidence, counts, uniform_counts(STACKED_MODES), "stacked_divergence", "stacked_modes")


def neighbour_error(evidence: Evidence) -> dict[str, Measure]:
    def labelled() -> Iterator[tuple[Pixels, Labels]]:
        for pixels, labels in iter([evidence.drawn]) if evidence.num_samples <= HELD else evidence.parts():
            if labels is None:
                raise CardiganError("The samples have no labels, and a classifier is fitted on them: train a generator with --conditional.")
            yield pixels, labels

    reference = evidence.reference
    wrong = neighbour_errors(reference.held_out, reference.held_out_labels, labelled())
    return {"neighbour_error": evidence.measure(mean_with_error(wrong), "real pictures")}


def memorisation(evidence: Evidence) -> dict[str, Measure]:
    reference, samples = evidence.reference, evidence.pixels[:SQUARE]
    kept = memories(samples, reference.training)
    again = repeats(samples)
    real = training_sampler(reference)
    real = real if (real.available or 0) >= len(samples) else held_out_sampler(reference)  # few pictures to train on
    near = cached_tensors(
        content_hash("repeats", reference.identity, str(len(samples)), str(REPEATED)),
        lambda: {"threshold": repeats(real.draw(0, len(samples))[0]).distance.quantile(REPEATED)},
    )["threshold"]
    evidence.worst["memorised"] = kept.worst(WORST)
    evidence.worst["repeated"] = [(int(place), int(again.index[place])) for place in again.distance.argsort(stable=True)[:WORST]]
    values = {
        "authenticity": (kept.authentic, len(reference.training)),
        "nearest_training_distance": (kept.nearest.distance, len(reference.training)),
        "repeated_share": ((again.distance < near).double(), 0),
    }
    return {name: evidence.measure(mean_with_error(each), "samples", len(samples), real) for name, (each, real) in values.items()}


def parzen(evidence: Evidence) -> dict[str, Measure]:
    samples, reference = evidence.pixels[:SQUARE], evidence.reference
    value, error, _ = parzen_log_likelihood(samples, reference.training[-VALIDATION:], reference.held_out)
    return {"parzen_log_likelihood": evidence.measure((value, error), "real pictures", len(samples))}


def _histogram(evidence: Evidence, counts: Tensor, data: Tensor, divergence: str, modes: str) -> dict[str, Measure]:
    against = partial(class_divergence, reference=data)
    found: dict[str, Callable[[Tensor], float]] = {divergence: against, modes: modes_covered}
    seed = evidence.sampler.seed
    return {
        name: evidence.measure(
            (float(number(counts)), bootstrap_error(counts, number, seed)), "counts redrawn (bootstrap)", num_reference=int(data.sum())
        )
        for name, number in found.items()
    }


@dataclass(frozen=True)
class Metric:
    """A group of numbers that are computed together."""

    measures: Callable[[Evidence], dict[str, Measure]]
    floor: Literal["train", "held-out"] = "train"
    """Which real pictures stand in for samples to find its floor: those trained on, or, where copying is measured, those that were not."""


METRICS = {
    "distance": Metric(distance),
    "kernel": Metric(kernel),
    "overlap": Metric(manifolds),
    "classes": Metric(classes),
    "score": Metric(score),
    "neighbour_error": Metric(neighbour_error),
    "memorisation": Metric(memorisation, floor="held-out"),
    "parzen": Metric(parzen),
    "stacked": Metric(stacked),
}
