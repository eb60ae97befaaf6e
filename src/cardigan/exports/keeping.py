"""The one way through an export: write under a temporary name, load back, compare, hash, tell in a card, and only then keep.

Knows no format by name.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cardigan.exports.card import card_text
from cardigan.exports.checking import check_difference, drawing_of, largest_difference
from cardigan.exports.interface import Format, Settings
from cardigan.exports.places import card_beside
from cardigan.exports.quality import Cost, stored_snapshot
from cardigan.exports.record import given_away
from cardigan.run import atomic
from cardigan.run.rounding import Weights
from cardigan.run.snapshot import Snapshot

Judge: TypeAlias = Callable[[Weights, Format], Cost | None]
"""Takes weights and the format that stores them; returns what the judge makes of them, if it is asked."""


@dataclass(frozen=True)
class Origin:
    """What is exported, where it came from, and what is told of its data's licence."""

    snapshot: Snapshot
    path: Path | None
    data_licence: str = ""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    format: str
    path: Path
    card: Path
    """The model card, beside the file or inside the folder."""
    weights: Weights
    difference: float
    """The largest from PyTorch with the same weights, of 2 between black and white."""
    rounding: float
    """The largest that fewer bits made, 0 for fp32."""
    sha256: str
    """Of the file; of a folder, of its manifest.json, which holds the hash of its pictures."""
    num_bytes: int
    cost: Cost | None = None
    """What the judge found, if it was asked."""


@dataclass(frozen=True)
class Kept:
    """An export and the words on it."""

    exported: Exported
    card: str
    lines: list[str]
    """What the card says of this export alone."""
    files: Mapping[str, str]
    """Names and SHA-256."""


def kept(origin: Origin, name: str, format: Format, settings: Settings, out: Path, judge: Judge) -> Kept:
    """Write one export, without a card beside it; raises CardiganError, keeping nothing, where it draws something else than PyTorch."""
    snapshot, exact = origin.snapshot, settings.weights == "float32"
    write = format.writer(given_away(snapshot), settings)
    rounding = 0.0 if exact else largest_difference(snapshot, drawing_of(stored_snapshot(snapshot, settings.weights, format)))
    cost = judge(settings.weights, format)

    def lines(difference: float) -> list[str]:
        what = f"`{out.name}` is the {format.what}. {format.opened_by.format(name=out.name)}"
        return [what, "", *_checked(name, format, settings, difference, rounding)]

    def card(difference: float, files: Mapping[str, str] | None = None) -> str:
        return card_text(snapshot, origin.path, files or {out.name: ""}, lines(difference), cost, origin.data_licence, settings.weights)

    with atomic.replacement(out) as temporary:
        difference = write(temporary, card(0.0))
        check_difference(format.what, difference, format.allowed)
        if difference > 0:  # again, so that the card inside tells what was found
            difference = max(difference, write(temporary, card(difference)))
            check_difference(format.what, difference, format.allowed)
        files = _hashes(temporary, out.name)
        num_bytes = sum(each.stat().st_size for each in (temporary.rglob("*") if temporary.is_dir() else [temporary]))
        _finish(temporary, card(difference, files))
    where = out / "README.md" if out.is_dir() else card_beside(out)
    exported = Exported(name, out, where, settings.weights, difference, rounding, next(iter(files.values())), num_bytes, cost)
    return Kept(exported, card(difference, files), lines(difference), files)


def _checked(name: str, format: Format, settings: Settings, difference: float, rounding: float) -> list[str]:
    """Return the card's words on how an export was checked."""
    if name == "samples":
        how = f"{settings.num:,} pictures of seed {settings.seed}, truncation {settings.truncation:g}"
        return [f"{how}; read back, they differ from PyTorch's by {difference:.1g} at most."]
    same = "it differs from PyTorch with the same weights"
    same = "its program, run step by step with fp32 weights, differs from PyTorch" if name == "html" else same
    found = [
        f"Weights stored as {settings.weights}. Measured before it was kept, {same} by "
        f"{difference:.1e} at most, of 2 between black and white ({format.allowed:.0e} is allowed)."
    ]
    if settings.weights != "float32":
        found.append(f"Fewer bits changed pictures by {rounding:.1e} at most; what that costs stands below if it was judged.")
    return found


def _hashes(temporary: Path, name: str) -> dict[str, str]:
    """Return the hash of a file; of a folder that of its manifest, which holds the hash of the rest."""
    if temporary.is_dir():
        return {f"{name}/manifest.json": file_hash(temporary / "manifest.json")}
    return {name: file_hash(temporary)}


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _finish(temporary: Path, card: str) -> None:
    """Put the card into a folder; bring a file onto the disk."""
    if temporary.is_dir():
        (temporary / "README.md").write_text(card, encoding="utf-8")
        return
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
