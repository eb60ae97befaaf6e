"""Evaluate a sampler against real images and return a report with its protocol.

Results for the real images are cached on disk.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import version
from typing import TypeAlias

import torch

from cardigan.backbones.efficientnet import EXAMINER
from cardigan.backbones.taps import shares_features
from cardigan.errors import CardiganError, unknown
from cardigan.files.disk_cache import cache_key, load_or_compute_json
from cardigan.metrics.class_histogram import frequencies
from cardigan.metrics.features import FeatureExtractor, find_extractor
from cardigan.metrics.inputs import MetricInputs
from cardigan.metrics.protocol import MetricValue, Protocol, Report
from cardigan.metrics.reference import (
    NUM_VALIDATION,
    Reference,
    Sampler,
    describe_resize,
    holdout_sampler,
    to_reference_shape,
    train_sampler,
)
from cardigan.metrics.table import METRICS
from cardigan.models.sampling import random_labels, sample_pixels
from cardigan.models.sampling_devices import SamplingDevices
from cardigan.models.snapshot import Snapshot
from cardigan.nets.table import backbone_name
from cardigan.plugins import plugin_versions
from cardigan.shapes import Labels, Pixels

NUM_SAMPLES = 10_000
MIN_SAMPLES = 100
BASELINE_FORMAT = 2
"""Increase this when a metric changes, so that cached real baselines are recomputed."""


def generator_sampler(
    snapshot: Snapshot,
    reference: Reference,
    seed: int = 0,
    truncation: float = 1.0,
    sampling: SamplingDevices | None = None,
) -> Sampler:
    """Return a sampler of a generator's images, with labels if it is conditional. Image i depends only on (seed, i).

    Clusters (`data.clusters`) are drawn like classes, but are no labels that a metric could compare.

    `sampling` are the devices that sample. Default: the generator's. `truncation` ranges from 1 (as trained) to 0 (the
    average image). Sampling raises CardiganError for other values.
    """
    config = snapshot.config
    sample = partial(sample_pixels, snapshot) if sampling is None else sampling.sample

    def draw(start: int, stop: int) -> tuple[Pixels, Labels | None]:
        keys = [(seed, number) for number in range(start, stop)]
        labels = random_labels(snapshot.spec, keys)
        pixels = to_reference_shape(sample(keys, labels, truncation), config.data, reference.image_shape)
        return pixels, None if config.data.clusters else labels

    image_resize = describe_resize(config.data, reference.image_shape)
    return Sampler(
        draw,
        seed,
        image_resize,
        truncation,
        snapshot.images_seen,
        config.data.split,
        teacher=backbone_name(config.discriminator),
    )


OnMetric: TypeAlias = Callable[[str, int, int], None]
"""Called with the name of a metric, its number from 1, and how many there are."""


def evaluate(
    sampler: Sampler,
    reference: Reference,
    extractor: FeatureExtractor | None = None,
    num_samples: int = NUM_SAMPLES,
    metrics: Iterable[str] | None = None,
    baseline: bool = True,
    on_metric: OnMetric | None = None,
) -> Report:
    """Return the report on the images of `sampler`.

    `metrics` are names in `METRICS`. By default all are computed, and `Report.unavailable` gives the reason for each
    missing one; a requested metric that cannot be computed is an error. `baseline` adds the score of the same number
    of real images to each metric. `extractor` defaults to the reference's. `on_metric` is called before each metric.
    Raises CardiganError for unknown metrics, too few samples, or images of another shape.
    """
    start = time.monotonic()
    extractor = extractor or find_extractor(reference.extractor, reference.image_shape)
    names = list(dict.fromkeys(METRICS if metrics is None else metrics))
    if shares_features(sampler.teacher, extractor.name):
        raise CardiganError(
            f"This generator's discriminator learned from {extractor.name}, so a score over its features would flatter "
            f"it: choose another --extractor, such as {EXAMINER}."
        )
    _check_inputs(sampler, reference, num_samples, names)
    inputs = MetricInputs(sampler, reference, extractor, num_samples)
    values: dict[str, MetricValue] = {}
    unavailable: dict[str, str] = {}
    for number, name in enumerate(names, start=1):
        if on_metric is not None:
            on_metric(name, number, len(names))
        try:
            computed = METRICS[name].compute(inputs)
        except CardiganError as error:
            if metrics is not None:
                raise
            unavailable[name] = str(error)
            continue
        for key in computed.keys() & values.keys():
            raise CardiganError(f"The metric {name!r} computes {key!r}, as another one does: rename it in its plug-in.")
        baselines = _baselines(name, reference, extractor, num_samples) if baseline else {}
        values |= {key: dataclasses.replace(value, **baselines.get(key, {})) for key, value in computed.items()}
    class_frequencies = frequencies(inputs.class_counts).tolist() if "class_kl" in values else []
    return Report(
        values,
        unavailable,
        _protocol(inputs),
        sampler.images_seen,
        class_frequencies,
        inputs.worst,
        seconds=round(time.monotonic() - start, 2),
    )


def worst_pairs(
    report: Report, sampler: Sampler, reference: Reference, which: str = "memorized"
) -> tuple[Pixels, Pixels]:
    """Return the samples of a report's worst pairs and their neighbors. Raises CardiganError without any."""
    pairs = report.worst.get(which)
    if not pairs:
        raise CardiganError(f"The report has no {which!r} samples: evaluate with the metric memorization.")
    samples = torch.cat([sampler.draw(sample, sample + 1)[0] for sample, _ in pairs])
    if which == "memorized":
        return samples, reference.train[[other for _, other in pairs]]
    return samples, torch.cat([sampler.draw(other, other + 1)[0] for _, other in pairs])


def _check_inputs(sampler: Sampler, reference: Reference, num_samples: int, names: list[str]) -> None:
    for name in names:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
    if num_samples < MIN_SAMPLES:
        raise CardiganError(
            f"{num_samples} samples: expected at least {MIN_SAMPLES}, and {NUM_SAMPLES:,} for results that are "
            "comparable with others."
        )
    if sampler.num_available is not None and num_samples > sampler.num_available:
        raise CardiganError(
            f"{num_samples:,} samples were requested, but only {sampler.num_available:,} are available: request fewer."
        )
    shape = tuple(sampler.draw(0, 1)[0].shape[1:])
    if shape != reference.image_shape:
        raise CardiganError(
            f"Samples of {_shape_text(shape)} and real images of {_shape_text(reference.image_shape)}: "
            "expected equal sizes and channels."
        )


def _baselines(
    name: str, reference: Reference, extractor: FeatureExtractor, num_samples: int
) -> dict[str, dict[str, float | None]]:
    """Return the real baseline of each metric, or nothing with fewer than `MIN_SAMPLES` real images.

    Of fewer real images than samples, all are taken, and `real_baseline_samples` tells how many.
    """
    group = METRICS[name]
    if reference.holdout is reference.train:
        return {}  # no holdout: training images would be compared with themselves
    is_large = len(reference.train) >= NUM_VALIDATION * 10
    num_reserved = NUM_VALIDATION if group.reads_validation or is_large else 0
    real_sampler = (
        train_sampler(reference, num_reserved=num_reserved) if group.baseline == "train" else holdout_sampler(reference)
    )
    count = min(num_samples, real_sampler.num_available or 0)
    if count < MIN_SAMPLES:
        return {}

    def compute() -> dict[str, dict[str, float | None]]:
        try:
            values = group.compute(MetricInputs(real_sampler, reference, extractor, count))
        except CardiganError:  # too few real images for this metric
            return {}
        return {
            key: {"real_baseline": value.value, "real_baseline_error": value.standard_error}
            for key, value in values.items()
        }

    cache_id = cache_key(
        "real-baseline",
        str(BASELINE_FORMAT),
        name,
        reference.sha256,
        extractor.name,
        extractor.weights_sha256,
        extractor.resize,
        str(count),
        *plugin_versions(),
    )
    found = load_or_compute_json(cache_id, compute)
    if count == num_samples:
        return found
    return {key: {**values, "real_baseline_samples": count} for key, values in found.items()}


def _protocol(inputs: MetricInputs) -> Protocol:
    sampler, reference, extractor = inputs.sampler, inputs.reference, inputs.extractor
    split_note = (
        "" if sampler.train_split == "train" else f" (data.split is {sampler.train_split}: these were trained on too)"
    )
    return Protocol(
        inputs.num_samples,
        sampler.seed,
        reference.name,
        reference.split + split_note,
        len(reference.holdout),
        reference.sha256,
        extractor.name,
        extractor.weights_sha256,
        extractor.resize,
        sampler.image_resize,
        version("cardigan"),
        sampler.truncation,
    )


def _shape_text(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[2]}x{shape[0]}"
