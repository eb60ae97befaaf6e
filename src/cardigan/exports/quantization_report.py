"""Metrics of the trained and of the quantized weights, on the same samples."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cardigan.exports.graph import without_parametrizations
from cardigan.exports.interface import ExportFormat
from cardigan.metrics.evaluate import evaluate, generator_sampler
from cardigan.metrics.protocol import Report, differs_significantly
from cardigan.metrics.reference_loader import load_reference
from cardigan.models.quantize import WeightsDtype, fake_quantize
from cardigan.models.snapshot import Snapshot

DEFAULT_NUM_SAMPLES = 10_000


@dataclass(frozen=True)
class QuantizationReport:
    """Metrics of the trained weights and, if the export is quantized, of the exported weights."""

    full_precision: Report
    quantized: Report | None
    weights: WeightsDtype


def evaluate_snapshot(
    snapshot: Snapshot, model: Path | None, num_samples: int = DEFAULT_NUM_SAMPLES, metrics: Sequence[str] | None = None
) -> Report:
    """Return the report of `cardigan evaluate`; raises CardiganError if there are no reference images."""
    reference = load_reference(snapshot.config, model)
    return evaluate(generator_sampler(snapshot, reference), reference, num_samples=num_samples, metrics=metrics)


def quantized_snapshot(snapshot: Snapshot, weights: WeightsDtype, format: ExportFormat) -> Snapshot:
    """Return the snapshot with quantized weights. Graph formats fold spectral norms before quantization."""
    if format.quantized_snapshot is not None:
        return format.quantized_snapshot(snapshot, weights)
    return replace(
        snapshot,
        generator=fake_quantize(
            without_parametrizations(snapshot.generator) if format.folds_spectral_norm else snapshot.generator, weights
        ),
    )


def quantization_lines(report: QuantizationReport) -> list[str]:
    """Return the metrics as lines of a card."""
    quantized = report.quantized
    header = [
        "metric",
        "fp32" if quantized else "value",
        *([report.weights, "differs"] if quantized else []),
        "real baseline",
        "better",
    ]
    rows = []
    for name, metric in report.full_precision.metrics.items():
        quantized_metric = quantized.metrics.get(name) if quantized else None
        quantized_cells = (
            []
            if quantized is None
            else [quantized_metric.text, "yes" if differs_significantly(metric, quantized_metric) else "no"]
            if quantized_metric
            else ["", ""]
        )
        rows.append([name, metric.text, *quantized_cells, metric.baseline_text, metric.better])
    protocol = report.full_precision.protocol
    return [
        *(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows]),
        "",
        f"Protocol: {protocol.num_samples:,} samples of seed {protocol.seed} ({protocol.image_resize}) against "
        f"{protocol.num_reference:,} of {protocol.reference} {protocol.reference_split} "
        f"({protocol.reference_sha256[:12]}), extractor {protocol.extractor} {protocol.extractor_sha256[:12]}, "
        f"resizer {protocol.extractor_resize}, cardigan {protocol.cardigan_version}. Errors are standard errors. "
        '"differs" means by more than twice the standard error of the difference.',
        *(f"{name} is unavailable: {reason}" for name, reason in report.full_precision.unavailable.items()),
    ]
