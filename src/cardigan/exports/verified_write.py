"""Writes one export: to a temporary path, then loads it back, compares, hashes, writes the card, and renames it.

Independent of the format.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cardigan.exports.anonymize import anonymized
from cardigan.exports.card import model_card
from cardigan.exports.checking import check_difference, largest_difference, pytorch_generate_fn
from cardigan.exports.interface import ExportFormat, ExportSettings
from cardigan.exports.output_paths import model_card_path
from cardigan.exports.quantization_report import QuantizationReport, quantized_snapshot
from cardigan.files import atomic
from cardigan.files.sha256 import file_sha256
from cardigan.models.quantize import WeightsDtype
from cardigan.models.snapshot import Snapshot

QuantizationFn: TypeAlias = Callable[[WeightsDtype, ExportFormat], QuantizationReport | None]
"""Takes the weights' dtype and the format; returns the metrics, or None if no evaluation is requested."""


@dataclass(frozen=True)
class ExportSource:
    """The exported snapshot, its path, and the license of its data."""

    snapshot: Snapshot
    path: Path | None
    data_license: str = ""


@dataclass(frozen=True)
class ExportedFile:
    """A written export."""

    format: str
    path: Path
    card: Path
    """Path of the model card, next to the file or in the folder."""
    weights: WeightsDtype
    difference: float
    """Largest difference from PyTorch with the same weights, for images in [-1, 1]."""
    quantization_difference: float
    """Largest difference caused by quantization; 0 for fp32."""
    sha256: str
    """Hash of the file, or of a folder's manifest.json, which contains the hash of its images."""
    num_bytes: int
    quantization: QuantizationReport | None = None
    """Metrics, if they were requested."""


@dataclass(frozen=True)
class ExportResult:
    """An export and the text of its card."""

    file: ExportedFile
    card: str
    card_lines: list[str]
    """The card's lines about this export only."""
    sha256_by_name: Mapping[str, str]


def write_and_verify(
    source: ExportSource,
    format_name: str,
    format: ExportFormat,
    settings: ExportSettings,
    out: Path,
    quantization_fn: QuantizationFn,
) -> ExportResult:
    """Write one export, without a separate card. Raises CardiganError, and writes nothing, if its images differ."""
    snapshot, is_full_precision = source.snapshot, settings.weights == "float32"
    write = format.make_writer(anonymized(snapshot), settings)
    quantization_difference = (
        0.0
        if is_full_precision
        else largest_difference(snapshot, pytorch_generate_fn(quantized_snapshot(snapshot, settings.weights, format)))
    )
    quantization = quantization_fn(settings.weights, format)

    def card_lines(difference: float) -> list[str]:
        usage_line = f"`{out.name}` is the {format.title}. {format.usage.format(name=out.name)}"
        return [
            usage_line,
            "",
            *_verification_lines(format_name, format, settings, difference, quantization_difference),
        ]

    def card(difference: float, sha256_by_name: Mapping[str, str] | None = None) -> str:
        return model_card(
            snapshot,
            source.path,
            sha256_by_name or {out.name: ""},
            card_lines(difference),
            quantization,
            source.data_license,
            settings.weights,
        )

    with atomic.atomic_path(out) as temporary:
        difference = write(temporary, card(0.0))
        check_difference(format.title, difference, format.tolerance)
        if difference > 0:  # again, so that the embedded card states the difference
            difference = max(difference, write(temporary, card(difference)))
            check_difference(format.title, difference, format.tolerance)
        sha256_by_name = _file_hashes(temporary, out.name)
        num_bytes = sum(path.stat().st_size for path in (temporary.rglob("*") if temporary.is_dir() else [temporary]))
        _finalize(temporary, card(difference, sha256_by_name))
    card_path = out / "README.md" if out.is_dir() else model_card_path(out)
    exported_file = ExportedFile(
        format_name,
        out,
        card_path,
        settings.weights,
        difference,
        quantization_difference,
        next(iter(sha256_by_name.values())),
        num_bytes,
        quantization,
    )
    return ExportResult(exported_file, card(difference, sha256_by_name), card_lines(difference), sha256_by_name)


def _verification_lines(
    format_name: str, format: ExportFormat, settings: ExportSettings, difference: float, quantization_difference: float
) -> list[str]:
    """Return the card's lines on how the export was verified."""
    if format_name == "samples":
        samples_text = f"{settings.num_samples:,} images of seed {settings.seed}, truncation {settings.truncation:g}"
        return [f"{samples_text}. Read back, they differ from PyTorch's by at most {difference:.1g}."]
    subject = "its program with fp32 weights" if format_name == "html" else "it"
    reference = "PyTorch" if format_name == "html" else "PyTorch with the same weights"
    lines = [
        f"Weights stored as {settings.weights}. Verified before it was written: {subject} differs from {reference} by "
        f"at most {difference:.1e}, for images in [-1, 1] (tolerance {format.tolerance:.0e})."
    ]
    if settings.weights != "float32":
        lines.append(
            f"Quantization changes images by at most {quantization_difference:.1e}. The metrics below show its effect, "
            "if they were evaluated."
        )
    return lines


def _file_hashes(temporary: Path, name: str) -> dict[str, str]:
    """Return the hash of a file, of a folder's manifest (which contains the hashes of its files), or of each file."""
    if not temporary.is_dir():
        return {name: file_sha256(temporary)}
    manifest = temporary / "manifest.json"
    files = [manifest] if manifest.exists() else sorted(path for path in temporary.rglob("*") if path.is_file())
    return {f"{name}/{path.relative_to(temporary).as_posix()}": file_sha256(path) for path in files}


def _finalize(temporary: Path, card: str) -> None:
    """Write the card into a folder, or flush a file to disk."""
    if temporary.is_dir():
        (temporary / "README.md").write_text(card, encoding="utf-8")
        return
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
