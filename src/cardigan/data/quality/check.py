"""A source of pictures checked before training: what is found in it, a sheet to look at, and a copy without what is wrong.

Opens and writes; what is seen is `data/doctor.py`'s business, what to do about it `data/advice.py`'s.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cardigan.data.decoding import DecodeSpec, decode_image
from cardigan.data.quality.advice import MAX_PIXELS, pluralize, recommended_spec
from cardigan.data.quality.findings import Findings, ImageRef, summarize_scan
from cardigan.data.quality.scan import ProgressFn, scan_images
from cardigan.data.reader import Reader, UnreadableImage
from cardigan.data.webdataset.addresses import is_shards
from cardigan.errors import CardiganError
from cardigan.figures.contact import COLUMNS, Section, contact_sheet
from cardigan.files import atomic
from cardigan.recipes import DEFAULT_RECIPES

CELL_SIZE = 96
NUM_SAMPLED = 100
"""Pictures on a sheet that are taken evenly from the whole source."""
NUM_TIMED = 32
"""Pictures that are decoded again to measure how long that takes."""


def check_source(
    source: str | Reader,
    labels: str = "",
    num_workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
    on_progress: ProgressFn | None = None,
) -> Findings:
    """Return what is in a source and what is wrong with it. Every picture is decoded once.

    `labels` and `max_pixels` are as in `DataConfig`; `num_workers` processes look at the pictures, one for each core if it is None, this one if it
    is 0; `on_progress` hears how far they are. Raises CardiganError for a source that cannot be opened, or if a process dies.
    """
    if num_workers is not None and num_workers < 0:
        raise CardiganError(f"num_workers is {num_workers}: expected a number of processes, or 0 to look in this one.")
    if max_pixels < 1:
        raise CardiganError(f"max_pixels is {max_pixels}: expected at least 1 pixel.")
    reader = open_source(source, labels)
    findings = summarize_scan(reader, scan_images(reader, max_pixels, num_workers, on_progress))
    return replace(
        findings, decode_seconds_per_epoch=_seconds_per_pass(reader, findings, recommended_spec(findings, max_pixels))
    )


def open_source(source: str | Reader, labels: str = "") -> Reader:
    """Return the pictures of a source; raises CardiganError for one that there is nothing to check in."""
    if isinstance(source, Reader):
        if labels:
            raise CardiganError(
                f"labels is {labels!r}, but {source.name} is opened already: give the labels where it is opened."
            )
        return source
    if source in DEFAULT_RECIPES:
        raise CardiganError(
            f"{source} comes with Cardigan and was checked: give your own pictures, or train with `cardigan train {source}`."
        )
    if is_shards(source):
        raise CardiganError(
            f"{source!r} is a set of shards, which is never read as a whole: give one of its tar files."
        )
    from cardigan.data.formats.detection import open_reader  # knows tensors too, and so imports torch

    return open_reader(source, labels)


def _seconds_per_pass(reader: Reader, findings: Findings, frame: DecodeSpec) -> float:
    indices = evenly_spaced_indices(_readable_indices(findings), NUM_TIMED)
    started_at = time.perf_counter()
    num_decoded = sum(_read_pixels(reader, index, frame) is not None for index in indices)
    return (time.perf_counter() - started_at) * findings.num_readable / num_decoded if num_decoded else 0.0


def _readable_indices(findings: Findings) -> list[int]:
    unusable = {entry.index for entry in findings.unreadable}
    return [index for index in range(findings.num_images) if index not in unusable]


def evenly_spaced_indices(indices: Sequence[int], count: int) -> list[int]:
    """Return at most `count` of the indices, evenly spread."""
    if len(indices) <= count:
        return list(indices)
    return [indices[place * len(indices) // count] for place in range(count)]


def _read_pixels(reader: Reader, index: int, frame: DecodeSpec) -> np.ndarray | None:
    try:
        return decode_image(reader.read(index), frame)
    except UnreadableImage:
        return None  # it was readable a moment ago


def write_contact_sheet(
    reader: Reader, findings: Findings, out: Path, max_pixels: int = MAX_PIXELS, overwrite: bool = False
) -> None:
    """Write a PNG of a hundred pictures from all over the source, then of the worst: blank, repeated side by side, smallest.

    Raises CardiganError for a file that is there already, unless it may be overwritten.
    """
    check_sheet_path(out, reader.name, overwrite)
    frame = DecodeSpec(CELL_SIZE, CELL_SIZE, 3, "pad", max_pixels)
    missing = np.full((CELL_SIZE, CELL_SIZE, 3), 128, np.uint8)
    sections = []
    for title, indices in _sheet_sections(findings):
        found = [_read_pixels(reader, index, frame) for index in indices]
        sections.append(Section(title, [missing if pixels is None else pixels for pixels in found]))
    atomic.write_bytes(out, contact_sheet(sections, CELL_SIZE))


def _sheet_sections(findings: Findings) -> Iterator[tuple[str, list[int]]]:
    sampled = evenly_spaced_indices(_readable_indices(findings), NUM_SAMPLED)
    yield f"{len(sampled):,} of {pluralize(findings.num_readable, 'picture')}", sampled
    yield f"blank: {len(findings.blank):,}", [entry.index for entry in findings.blank[:COLUMNS]]
    yield (
        f"duplicates: {pluralize(len(findings.duplicates), 'group')}",
        _pairs([group.members for group in findings.duplicates]),
    )
    yield (
        f"near-duplicates: {pluralize(len(findings.near_duplicates), 'group')}",
        _pairs([group.members for group in findings.near_duplicates]),
    )
    if findings.sizes is not None and findings.sizes.num_distinct > 1:
        yield "smallest", [entry.index for entry in findings.sizes.smallest_entries]


def _pairs(groups: Sequence[Sequence[ImageRef]]) -> list[int]:
    """Return the first two of each group, for two rows of pairs."""
    return [entry.index for group in groups[:COLUMNS] for entry in group[:2]]


def check_sheet_path(out: Path, source: str, overwrite: bool) -> None:
    """Raise CardiganError for a place where no sheet may be written."""
    _check_output_path(out, ".png", "--contact-sheet", "add --overwrite to replace it, or " if not overwrite else None)
    folder = Path(source).expanduser()
    if folder.is_dir() and out.absolute().resolve().is_relative_to(folder.resolve()):
        raise CardiganError(
            f"--contact-sheet {out} lies in the source {source}, whose picture it would be from then on: choose a place outside."
        )


def _check_output_path(out: Path, suffix: str, option: str, alternative: str | None) -> None:
    """`alternative` is what else can be done about a file that is there; None where it may be replaced."""
    if out.suffix != suffix:
        raise CardiganError(f"{option} is {str(out)!r}: expected a name ending in {suffix}.")
    if out.is_dir() or (out.exists() and alternative is not None):
        raise CardiganError(f"{out} exists already: {alternative or ''}choose another {option}.")
    if not out.absolute().parent.is_dir():
        raise CardiganError(
            f"There is no folder {out.absolute().parent} to write into: make it, or choose another {option}."
        )
