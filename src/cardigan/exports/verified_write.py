"""The one way through an export: write under a temporary name, load back, compare, hash, tell in a card, and only then keep.

Knows no format by name.
"""

import hashlib
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
from cardigan.models.quantize import WeightsDtype
from cardigan.models.snapshot import Snapshot

QuantizationFn: TypeAlias = Callable[[WeightsDtype, ExportFormat], QuantizationReport | None]
"""Takes weights and the format that stores them; returns what the judge makes of them, if it is asked."""


@dataclass(frozen=True)
class ExportSource:
    """What is exported, where it came from, and what is told of its data's license."""

    snapshot: Snapshot
    path: Path | None
    data_license: str = ""


@dataclass(frozen=True)
class ExportedFile:
    """What was written."""

    format: str
    path: Path
    card: Path
    """The model card, beside the file or inside the folder."""
    weights: WeightsDtype
    difference: float
    """The largest from PyTorch with the same weights, of 2 between black and white."""
    quantization_difference: float
    """The largest that fewer bits made, 0 for fp32."""
    sha256: str
    """Of the file; of a folder, of its manifest.json, which holds the hash of its pictures."""
    num_bytes: int
    quantization: QuantizationReport | None = None
    """What the judge found, if it was asked."""


@dataclass(frozen=True)
class ExportResult:
    """An export and the words on it."""

    file: ExportedFile
    card: str
    card_lines: list[str]
    """What the card says of this export alone."""
    sha256_by_name: Mapping[str, str]
    """Names and SHA-256."""


def write_and_verify(
    source: ExportSource,
    format_name: str,
    format: ExportFormat,
    settings: ExportSettings,
    out: Path,
    quantization_fn: QuantizationFn,
) -> ExportResult:
    """Write one export, without a card beside it; raises CardiganError, keeping nothing, where it draws something else than PyTorch."""
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
        if difference > 0:  # again, so that the card inside tells what was found
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
    """Return the card's words on how an export was checked."""
    if format_name == "samples":
        samples_text = f"{settings.num_samples:,} pictures of seed {settings.seed}, truncation {settings.truncation:g}"
        return [f"{samples_text}; read back, they differ from PyTorch's by {difference:.1g} at most."]
    comparison = "it differs from PyTorch with the same weights"
    comparison = (
        "its program, run step by step with fp32 weights, differs from PyTorch" if format_name == "html" else comparison
    )
    lines = [
        f"Weights stored as {settings.weights}. Measured before it was kept, {comparison} by "
        f"{difference:.1e} at most, of 2 between black and white ({format.tolerance:.0e} is allowed)."
    ]
    if settings.weights != "float32":
        lines.append(
            f"Fewer bits changed pictures by {quantization_difference:.1e} at most; what that costs stands below if it was judged."
        )
    return lines


def _file_hashes(temporary: Path, name: str) -> dict[str, str]:
    """Return the hash of a file; of a folder that of its manifest, which holds the hash of the rest."""
    if temporary.is_dir():
        return {f"{name}/manifest.json": file_hash(temporary / "manifest.json")}
    return {name: file_hash(temporary)}


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _finalize(temporary: Path, card: str) -> None:
    """Put the card into a folder; bring a file onto the disk."""
    if temporary.is_dir():
        (temporary / "README.md").write_text(card, encoding="utf-8")
        return
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
