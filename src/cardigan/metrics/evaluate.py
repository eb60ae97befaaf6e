"""The judge: a sampler and real pictures in, a report with its protocol out.

Reads snapshots, never trains; what it computes of the real pictures is cached on disk.
"""

import dataclasses
import time
from collections.abc import Iterable
from importlib.metadata import version

import torch

from cardigan.errors import CardiganError, unknown
from cardigan.latents import sample_labels
from cardigan.metrics.cache import cached_values, content_hash
from cardigan.metrics.features import Extractor, find_extractor
from cardigan.metrics.measures import METRICS, Evidence
from cardigan.metrics.modes import shares
from cardigan.metrics.protocol import Measure, Protocol, Report
from cardigan.metrics.reference import Reference, Sampler, frame_text, held_out_sampler, training_sampler, unframed
from cardigan.run.snapshot import Snapshot, sample_pixels
from cardigan.shapes import Labels, Pixels

SAMPLES = 10_000
FEWEST = 100
FORMAT = 1
"""Raised when a number changes its meaning, so that no older floor is read."""


def snapshot_sampler(snapshot: Snapshot, reference: Reference, seed: int = 0, truncation: float = 1.0) -> Sampler:
    """Return a sampler of a generator's pictures, with the classes they were drawn for if it has any; picture i depends on (seed, i) alone.

    `truncation` goes from 1 (as trained) to 0 (the average picture); drawing raises CardiganError for others.
    """
    config = snapshot.config

    def draw(start: int, stop: int) -> tuple[Pixels, Labels | None]:
        keys = [(seed, number) for number in range(start, stop)]
        labels = sample_labels(keys, snapshot.spec.classes) if snapshot.spec.classes else None
        return unframed(sample_pixels(snapshot, keys, labels, truncation), config.data, reference.frame), labels

    frame = frame_text(config.data, reference.frame)
    return Sampler(draw, seed, frame, truncation, snapshot.images_seen, config.data.split)


def evaluate(
    sampler: Sampler,
    reference: Reference,
    extractor: Extractor | None = None,
    num_samples: int = SAMPLES,
    metrics: Iterable[str] | None = None,
    floor: bool = True,
) -> Report:
    """Return the judgement of what `sampler` draws.

    `metrics` are names in `METRICS`; by default all, and those that cannot be computed are absent with the reason, while one that was
    asked for and cannot be is an error. `floor` puts beside each number what as many real pictures score. The extractor is the
    reference's own unless another is given. Raises CardiganError for unknown metrics, too few samples, or pictures of another frame.
    """
    began = time.monotonic()
    extractor = extractor or find_extractor(reference.extractor, reference.frame)
    chosen = list(METRICS if metrics is None else metrics)
    _check(sampler, reference, num_samples, chosen)
    evidence = Evidence(sampler, reference, extractor, num_samples)
    measures: dict[str, Measure] = {}
    absent: dict[str, str] = {}
    for name in chosen:
        try:
            found = METRICS[name].measures(evidence)
        except CardiganError as error:
            if metrics is not None:
                raise
            absent[name] = str(error)
            continue
        floors = _floors(name, reference, extractor, num_samples) if floor else {}
        measures |= {key: dataclasses.replace(measure, **floors.get(key, {})) for key, measure in found.items()}
    spread = shares(evidence.counts).tolist() if "class_divergence" in measures else []
    return Report(measures, absent, _protocol(evidence), sampler.images_seen, spread, evidence.worst, seconds=round(time.monotonic() - began, 2))


def worst_pictures(report: Report, sampler: Sampler, reference: Reference, kind: str = "memorised") -> tuple[Pixels, Pixels]:
    """Return the samples of a report's worst cases and their neighbours, drawn again; raises CardiganError if it has none."""
    pairs = report.worst.get(kind)
    if not pairs:
        raise CardiganError(f"The report holds no {kind!r} samples: evaluate with the metric memorisation.")
    samples = torch.cat([sampler.draw(sample, sample + 1)[0] for sample, _ in pairs])
    if kind == "memorised":
        return samples, reference.training[[other for _, other in pairs]]
    return samples, torch.cat([sampler.draw(other, other + 1)[0] for _, other in pairs])


def _check(sampler: Sampler, reference: Reference, num_samples: int, chosen: list[str]) -> None:
    for name in chosen:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
    if num_samples < FEWEST:
        raise CardiganError(f"{num_samples} samples: expected at least {FEWEST}, and {SAMPLES:,} for numbers that can be compared with others'.")
    if sampler.available is not None and num_samples > sampler.available:
        raise CardiganError(f"{num_samples:,} samples were asked for and there are {sampler.available:,}: ask for fewer.")
    frame = tuple(sampler.draw(0, 1)[0].shape[1:])
    if frame != reference.frame:
        raise CardiganError(f"Pictures of {_shape(frame)} beside real ones of {_shape(reference.frame)}: expected equal sizes and channels.")


def _floors(name: str, reference: Reference, extractor: Extractor, num_samples: int) -> dict[str, dict[str, float]]:
    """Return what real pictures score in the samples' place; nothing where there are not so many."""
    metric = METRICS[name]
    if reference.held_out is reference.training:
        return {}  # none are held out: training pictures would be compared with themselves
    real = training_sampler(reference) if metric.floor == "train" else held_out_sampler(reference)
    if real.available is None or real.available < num_samples:
        return {}

    def compute() -> dict[str, dict[str, float]]:
        found = metric.measures(Evidence(real, reference, extractor, num_samples))
        return {key: {"floor": measure.value, "floor_error": measure.standard_error} for key, measure in found.items()}

    key = content_hash("floor", str(FORMAT), name, reference.identity, extractor.name, extractor.identity, extractor.resizer, str(num_samples))
    return cached_values(key, compute)


def _protocol(evidence: Evidence) -> Protocol:
    sampler, reference, extractor = evidence.sampler, evidence.reference, evidence.extractor
    seen = "" if sampler.trained_on == "train" else f" (also trained on: data.split is {sampler.trained_on})"
    return Protocol(
        evidence.num_samples,
        sampler.seed,
        reference.name,
        reference.split + seen,
        len(reference.held_out),
        reference.identity,
        extractor.name,
        extractor.identity,
        extractor.resizer,
        sampler.frame,
        version("cardigan"),
        sampler.truncation,
    )


def _shape(frame: tuple[int, ...]) -> str:
    return f"{frame[1]}x{frame[2]}x{frame[0]}"
