"""`cardigan evaluate MODEL`: metrics of a generator, with standard errors, real baselines and the protocol."""

import json
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cardigan.cli.devices import check_device, check_num_devices
from cardigan.cli.known_names import known_extractors, known_metrics, one_of
from cardigan.cli.metric_progress import metric_progress
from cardigan.cli.parsing import parse
from cardigan.errors import CardiganError

if TYPE_CHECKING:
    from cardigan.metrics.protocol import Report
    from cardigan.metrics.reference import Reference, Sampler


MAX_COLUMNS = 80
NO_BASELINE = (
    "real baseline: none, because the run held out no images (train with --data.holdout), or because there are fewer "
    "than 100 real images"
)


@dataclass(frozen=True, kw_only=True)
class ProtocolOptions:
    """The evaluation protocol, shared by `evaluate` and `compare`."""

    metrics: Annotated[
        str | None,
        tyro.conf.arg(
            help=f"Metrics to compute, e.g. frechet,prdc. Default: all that apply. Known: {', '.join(known_metrics())}."
        ),
    ] = None
    samples: int = 10_000
    """Number of images to evaluate. Results of different counts are not comparable."""
    seed: int = 0
    """Random seed. Equal seeds give equal images."""
    truncation: float = 1.0
    """1 samples as trained, 0 gives the average image; below 1 most generators give cleaner but less varied images."""
    extractor: Annotated[
        str | None,
        tyro.conf.arg(help=f"Feature extractor: {one_of(known_extractors())}. Default: chosen for the images."),
    ] = None
    weights: str | None = None
    """Weights of an extractor that needs them, such as inception or dinov2: a .safetensors file, or
    https://...#sha256=HASH."""
    baseline: bool = True
    """Also compute the metrics of as many real images (cached in ~/.cache/cardigan or $CARDIGAN_CACHE)."""
    device: str = "auto"
    """Device for images and features: auto (a GPU if there is one), cpu, cuda, cuda:1, mps."""
    devices: int = 1
    """Number of processes for images and features, each with its own GPU or its share of the CPU cores."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(ProtocolOptions):
    """Evaluate a trained generator. The same command prints the same metrics, each with its error and real baseline."""

    model: Annotated[Path, tyro.conf.Positional]
    """A run directory, a checkpoint folder, a generator.safetensors, or a model on the hub, hf:user/name."""
    reference: str | None = None
    """Real images for a model without a recorded source: mnist, a folder, archive, array, table or dataset."""
    nearest_png: Path | None = None
    """Write the samples that are nearest to training images, with those images, to this PNG."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace the file --nearest-png if it exists."""


def main(argv: list[str]) -> int:
    """Print the report; return the exit code."""
    options = parse(EvaluateOptions, argv, "cardigan evaluate")
    if options.nearest_png is not None:
        check_nearest_png(options.nearest_png, options.overwrite)
    report, sampler, reference = evaluate_model(options.model, options, options.reference)
    if options.nearest_png is not None:
        _write_nearest_png(options.nearest_png, report, sampler, reference)
    print(json.dumps(report.to_dict(), indent=1) if options.json else report_text(report, options.baseline))
    return 0


def evaluate_model(
    model: Path, options: ProtocolOptions, reference_source: str | None = None
) -> "tuple[Report, Sampler, Reference]":
    """Return the report on one model, with its sampler and reference, and show the progress."""
    from cardigan.experiment import evaluation

    check_device(options.device)
    check_num_devices(options.devices, options.device)
    with metric_progress() as on_metric:
        return evaluation.evaluate_model(
            model,
            reference_source=reference_source,
            metrics=None if options.metrics is None else [name.strip() for name in options.metrics.split(",")],
            num_samples=options.samples,
            seed=options.seed,
            truncation=options.truncation,
            extractor=options.extractor,
            weights=options.weights,
            baseline=options.baseline,
            device=options.device,
            num_devices=options.devices,
            on_metric=on_metric,
        )


def report_text(report: "Report", with_baseline: bool = True) -> str:
    """Return a report as text, with the reason if real baselines were asked for and there are none."""
    rows = [("", "value", "real baseline", "better")]
    rows += [
        (name, value.text, value.baseline_text, "" if value.better == "neither" else value.better)
        for name, value in report.metrics.items()
    ]
    lines = [*aligned_lines(rows), ""]
    if report.class_frequencies:
        frequencies = " ".join(f"{frequency:.3f}" for frequency in report.class_frequencies)
        lines += [*wrapped(f"frequency of each class: {frequencies}"), ""]
    for name, reason in report.unavailable.items():
        lines += wrapped(f"{name} is unavailable: {reason}")
    if with_baseline and all(value.real_baseline is None for value in report.metrics.values()):
        lines += wrapped(NO_BASELINE)
    for method in dict.fromkeys(value.error_method for value in report.metrics.values()):
        names = ", ".join(name for name, value in report.metrics.items() if value.error_method == method)
        lines += wrapped(f"error of {names}: {method or 'not known'}")
    for count in sorted({value.num_samples for value in report.metrics.values()} - {report.protocol.num_samples}):
        names = ", ".join(name for name, value in report.metrics.items() if value.num_samples == count)
        lines += wrapped(f"samples of {names}: {count:,}")
    return "\n".join([*lines, *protocol_lines(report), f"{report.seconds:.0f} s"])


def wrapped(text: str) -> list[str]:
    """Return text as lines that a terminal of 80 columns shows whole; further lines are indented."""
    return textwrap.wrap(text, MAX_COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def protocol_lines(report: "Report") -> list[str]:
    """Return the protocol, which must be equal for two reports to be comparable."""
    protocol = report.protocol
    weights = f", weights {protocol.extractor_sha256[:12]}" if protocol.extractor_sha256 else ""
    truncation_text = f", truncation {protocol.truncation:g}" if protocol.truncation != 1 else ""
    return wrapped(
        f"protocol: {protocol.num_samples:,} samples of seed {protocol.seed}{truncation_text} "
        f"({protocol.image_resize}) against {protocol.num_reference:,} of "
        f"{protocol.reference} {protocol.reference_split} ({protocol.reference_sha256[:12]}), "
        f"extractor {protocol.extractor}{weights}, resizer {protocol.extractor_resize}, "
        f"cardigan {protocol.cardigan_version}"
    )


def aligned_lines(rows: list[tuple[str, ...]]) -> list[str]:
    """Return rows as lines with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def check_nearest_png(out: Path, overwrite: bool) -> None:
    if out.suffix != ".png":
        raise CardiganError(f"--nearest-png is {str(out)!r}: expected a name ending in .png.")
    if out.exists() and not overwrite:
        raise CardiganError(f"{out} exists already: add --overwrite to replace it, or choose another --nearest-png.")
    if not out.absolute().parent.is_dir():
        raise CardiganError(
            f"There is no folder {out.absolute().parent} to write into: create it, or choose another --nearest-png."
        )


def _write_nearest_png(out: Path, report: "Report", sampler: "Sampler", reference: "Reference") -> None:
    from cardigan.figures.grid import neighbor_grid, png_bytes
    from cardigan.files import atomic
    from cardigan.metrics.evaluate import worst_pairs

    atomic.write_bytes(out, png_bytes(neighbor_grid(*worst_pairs(report, sampler, reference))))
