"""`export`: a model to a file with a card beside it, or to a folder of several formats with one card inside.

Knows the order of things; `table.py` knows the formats, `verified_write.py` how one is written and checked.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from cardigan.exports.card import model_card
from cardigan.exports.interface import ExportFormat, ExportSettings
from cardigan.exports.output_paths import check_new_folder, check_not_source, check_output, default_path, model_name
from cardigan.exports.quantization_report import QuantizationReport, evaluate_snapshot, quantized_snapshot
from cardigan.exports.table import FORMATS, check_settings, find_format
from cardigan.exports.verified_write import ExportedFile as ExportedFile
from cardigan.exports.verified_write import ExportSource, QuantizationFn, write_and_verify
from cardigan.files import atomic
from cardigan.metrics.protocol import Report
from cardigan.models.quantize import WeightsDtype
from cardigan.models.snapshot import Snapshot, read_snapshot


@runtime_checkable
class HasSnapshot(Protocol):
    """Anything with a snapshot, such as what `cardigan.load` returns."""

    @property
    def snapshot(self) -> Snapshot: ...

    @property
    def path(self) -> Path | None: ...  # where it was read from


def export(
    model: str | Path | Snapshot | HasSnapshot,
    format: str = "safetensors",
    out: str | Path | None = None,
    *,
    weights: WeightsDtype | None = None,
    num_samples: int = 1_000,
    seed: int = 0,
    truncation: float = 1.0,
    label: int | str | None = None,
    evaluate_samples: int | None = None,
    data_license: str = "",
    overwrite: bool = False,
) -> ExportedFile:
    """Export a model to one format of `FORMATS` and return what was written: where, its difference from PyTorch and its hash.

    `out` is by default the model's name with the format's ending. `num_samples`, `seed`, `truncation` and `label` are those of the samples.
    With `evaluate_samples`, so many pictures are judged, of the trained weights and of the rounded ones, and the card tells it.
    Raises CardiganError, and keeps nothing, for a network or weights that the format cannot hold, for a file that is there already,
    and for an export that draws something else than PyTorch.
    """
    export_format = find_format(format)
    settings = ExportSettings(
        weights=weights or export_format.weight_dtypes[0],
        num_samples=num_samples,
        seed=seed,
        truncation=truncation,
        label=label,
    )
    check_settings(format, settings)
    model_path = _model_path(model)
    out_path = default_path(model_path, export_format, settings) if out is None else Path(out)
    check_output(out_path, export_format, overwrite)
    check_not_source(out_path, model_path)
    source = ExportSource(snapshot_on_cpu(_model_snapshot(model)), model_path, data_license)
    result = write_and_verify(
        source, format, export_format, settings, out_path, _quantization_fn(source, evaluate_samples)
    )
    if not out_path.is_dir():
        atomic.write_bytes(result.file.card, result.card.encode())
    return result.file


def export_all(
    model: Path,
    formats: Sequence[str],
    out: Path | None = None,
    weights: WeightsDtype | None = None,
    sample_settings: ExportSettings | None = None,
    evaluate_samples: int | None = None,
    data_license: str = "",
) -> list[ExportedFile]:
    """Export a model to several formats in one new folder with one card, README.md; the folder appears whole or not at all.

    `weights` are those of every format that holds any, `sample_settings` says which samples.
    """
    out_path = out or Path(f"{model_name(model)}-export")
    check_new_folder(out_path)
    default_weights = {name: find_format(name).weight_dtypes[0] for name in formats}
    settings = {
        name: replace(
            sample_settings or ExportSettings(),
            weights=default_weights[name] if name == "samples" else weights or default_weights[name],
        )
        for name in formats
    }
    for name in formats:
        check_settings(name, settings[name])
    source = ExportSource(read_snapshot(model), model, data_license)
    quantization_fn = _quantization_fn(source, evaluate_samples)
    with atomic.atomic_path(out_path) as folder:
        folder.mkdir()
        results = [
            write_and_verify(
                source,
                name,
                FORMATS[name],
                result,
                folder / (f"generator{suffix}" if (suffix := FORMATS[name].suffixes[0]) else name),
                quantization_fn,
            )
            for name, result in settings.items()
        ]
        lines = [line for each in results for line in [*each.card_lines, ""]][:-1]
        files = {name: digest for each in results for name, digest in each.sha256_by_name.items()}
        quantizations = [
            *(quantization for each in results if (quantization := each.file.quantization) and quantization.quantized),
            results[0].file.quantization,
        ]
        (folder / "README.md").write_text(
            model_card(source.snapshot, model, files, lines, quantizations[0], data_license), encoding="utf-8"
        )
    return [replace(each.file, path=out_path / each.file.path.name, card=out_path / "README.md") for each in results]


def _model_snapshot(model: str | Path | Snapshot | HasSnapshot) -> Snapshot:
    if isinstance(model, str | Path):
        return read_snapshot(Path(model))
    return model if isinstance(model, Snapshot) else model.snapshot


def _model_path(model: str | Path | Snapshot | HasSnapshot) -> Path | None:
    """Return where a model lies, or lay: its run can tell of a checkpoint that is gone."""
    if isinstance(model, str | Path):
        return Path(model)
    return None if isinstance(model, Snapshot) else model.path


def snapshot_on_cpu(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot that draws on the CPU, as exports are made and compared; one that was moved to another device stays there, and is copied."""
    if all(parameter.device.type == "cpu" for parameter in snapshot.generator.parameters()):
        return snapshot
    return replace(snapshot, generator=deepcopy(snapshot.generator).cpu())


def _quantization_fn(source: ExportSource, num_samples: int | None) -> QuantizationFn:
    """Return what tells the cost of weights; the trained ones are judged once, and so is each way of rounding them."""
    reports: dict[tuple[WeightsDtype, str], Report] = {}

    def report(weights: WeightsDtype, format: ExportFormat | None, num_samples: int) -> Report:
        spectral = source.snapshot.config.generator.spectral_norm
        rounding_key = (
            ""
            if format is None
            else format.title
            if format.quantized_snapshot
            else "graph"
            if format.folds_spectral_norm and spectral
            else ""
        )
        if (weights, rounding_key) not in reports:
            snapshot = source.snapshot if format is None else quantized_snapshot(source.snapshot, weights, format)
            reports[weights, rounding_key] = evaluate_snapshot(snapshot, source.path, num_samples)
        return reports[weights, rounding_key]

    def quantization(weights: WeightsDtype, format: ExportFormat) -> QuantizationReport | None:
        if num_samples is None:
            return None
        return QuantizationReport(
            report("float32", None, num_samples),
            None if weights == "float32" else report(weights, format, num_samples),
            weights,
        )

    return quantization
