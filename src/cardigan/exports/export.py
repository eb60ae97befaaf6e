"""`export`: one format with a model card, or several formats in a folder with one card.

`table.py` lists the formats, `verified_write.py` writes and verifies one.
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
from cardigan.exports.table import FORMATS, check_settings, check_signing, find_format
from cardigan.exports.verified_write import ExportedFile as ExportedFile
from cardigan.exports.verified_write import ExportSource, QuantizationFn, write_and_verify
from cardigan.figures.c2pa_manifest import SigningKey
from cardigan.files import atomic
from cardigan.metrics.protocol import Report
from cardigan.models.quantize import WeightsDtype
from cardigan.models.snapshot import Snapshot, read_snapshot


@runtime_checkable
class HasSnapshot(Protocol):
    """Anything with a snapshot, such as the result of `cardigan.load`."""

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
    first_sample: int = 0,
    seed: int = 0,
    truncation: float = 1.0,
    label: int | str | None = None,
    device: str = "cpu",
    num_devices: int = 1,
    mark: bool = True,
    signing: SigningKey | None = None,
    title: str = "",
    direction_names: Sequence[str] = (),
    evaluate_samples: int | None = None,
    data_license: str = "",
    overwrite: bool = False,
) -> ExportedFile:
    """Export a model to one format of `FORMATS`; return the path, the difference from PyTorch and the hash.

    - `model`: what `load` returns or reads.
    - `format`: safetensors, onnx, pt2, html or samples.
    - `out`: the file or folder. Default: the model's name with the format's suffix.
    - `weights`: the type of the exported weights. Default: the format's first.
    - `num_samples`, `first_sample`, `seed`, `truncation`, `label`, `device`, `num_devices` and `mark` (PNGs say that
      they are generated): for the format samples. `num_devices` processes sample, each on its own GPU or its share of
      the CPU cores; a script then needs `if __name__ == "__main__":`.
    - `signing`: a key of `cardigan.figures.signing_key`, which signs the PNGs of the format samples, and the files of
      the formats safetensors and onnx, with C2PA manifests.
    - `title`, `direction_names` (names of the first principal directions): for the format html.
    - `evaluate_samples`: evaluate so many images, for the trained and for the quantized weights; the card reports the
      metrics. Default: no evaluation.
    - `data_license`: the license of the training images, for the card.
    - `overwrite`: replace existing files.

    Raises CardiganError, and writes nothing, for a network or weights that the format does not support, for an existing
    file, and for an export whose images differ from PyTorch's.

    Examples:
        >>> import cardigan
        >>> exported = cardigan.export("runs/first", "safetensors", "digits.safetensors")
        >>> exported.path.name, exported.difference
        ('digits.safetensors', 0.0)
    """
    export_format = find_format(format)
    settings = ExportSettings(
        weights=weights or export_format.weight_dtypes[0],
        num_samples=num_samples,
        first_sample=first_sample,
        seed=seed,
        truncation=truncation,
        label=label,
        device=device,
        num_devices=num_devices,
        mark=mark,
        signing=signing,
        title=title,
        direction_names=tuple(direction_names),
    )
    check_settings(format, settings)
    check_signing(format, settings, None if out is None else Path(out))
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
    """Export a model to several formats in one new folder with one card, README.md. The folder is created atomically.

    `weights` applies to every format with weights, `sample_settings` to the samples and the page.
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
        check_signing(name, settings[name])
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
                folder / _name_in_folder(name, formats),
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


def _name_in_folder(format_name: str, formats: Sequence[str]) -> str:
    """Return the name of one of several exports: generator.SUFFIX, or its format's name if that is not unique."""
    suffix = FORMATS[format_name].suffixes[0]
    if not suffix:
        return format_name
    is_unique = [FORMATS[name].suffixes[0] for name in formats].count(suffix) == 1
    return f"{'generator' if is_unique else format_name}{suffix}"


def _model_snapshot(model: str | Path | Snapshot | HasSnapshot) -> Snapshot:
    if isinstance(model, str | Path):
        return read_snapshot(Path(model))
    return model if isinstance(model, Snapshot) else model.snapshot


def _model_path(model: str | Path | Snapshot | HasSnapshot) -> Path | None:
    """Return a model's path. It need not exist: the run also knows deleted checkpoints."""
    if isinstance(model, str | Path):
        return Path(model)
    return None if isinstance(model, Snapshot) else model.path


def snapshot_on_cpu(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot on the CPU, where exports are made and verified. Copies a generator on another device."""
    if all(parameter.device.type == "cpu" for parameter in snapshot.generator.parameters()):
        return snapshot
    return replace(snapshot, generator=deepcopy(snapshot.generator).cpu())


def _quantization_fn(source: ExportSource, num_samples: int | None) -> QuantizationFn:
    """Return a function that evaluates the effect of quantization. Each set of weights is evaluated once."""
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
