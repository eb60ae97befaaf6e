"""The check of a source before training: findings and a contact sheet.

Opens sources and writes files. `findings.py` summarizes the images, `advice.py` recommends what to do.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cardigan.data.decoding import DecodeSpec, decode_image
from cardigan.data.quality.advice import MAX_PIXELS, pluralize, recommended_spec
from cardigan.data.quality.findings import Findings, ImageRef, summarize_scan
from cardigan.data.quality.scan import scan_images
from cardigan.data.reader import ProgressFn, Reader, UnreadableImage, evenly_spaced_indices
from cardigan.data.webdataset.addresses import is_shards
from cardigan.errors import CardiganError
from cardigan.figures.contact import COLUMNS, Section, contact_sheet
from cardigan.files import atomic
from cardigan.recipes import DEFAULT_RECIPES

CELL_SIZE = 96
NUM_SAMPLED = 100
"""Evenly spaced images on a contact sheet."""
NUM_TIMED = 32
"""Images that are decoded again to measure the time."""


def check_source(
    source: str | Reader,
    labels: str = "",
    num_workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
    on_progress: ProgressFn | None = None,
) -> Findings:
    """Return the findings about a source. Every image is decoded once.

    `labels` and `max_pixels` are as in `DataConfig`. `num_workers` is the number of worker processes. Default: one per
    core; 0 decodes in this process. `on_progress` gets the number of finished images and the total.
    Raises CardiganError if the source cannot be opened or a worker dies.
    """
    if num_workers is not None and num_workers < 0:
        raise CardiganError(f"num_workers is {num_workers}: expected a number of processes, or 0 for this process.")
    if max_pixels < 1:
        raise CardiganError(f"max_pixels is {max_pixels}: expected at least 1 pixel.")
    reader = open_source(source, labels)
    findings = summarize_scan(reader, scan_images(reader, max_pixels, num_workers, on_progress))
    return replace(
        findings, decode_seconds_per_epoch=_seconds_per_pass(reader, findings, recommended_spec(findings, max_pixels))
    )


def open_source(source: str | Reader, labels: str = "") -> Reader:
    """Return the reader of a source. Raises CardiganError for built-in datasets and for remote shards."""
    if isinstance(source, Reader):
        if labels:
            raise CardiganError(
                f"labels is {labels!r}, but {source.name} is open already: give the labels when you open it."
            )
        return source
    if source in DEFAULT_RECIPES:
        raise CardiganError(
            f"{source} is built in and needs no check: give your own images, or train with `cardigan train {source}`."
        )
    if is_shards(source):
        if labels:
            raise CardiganError(
                f"The labels are {labels!r}, but shards hold their own classes: leave --labels out, as in training."
            )
        from cardigan.data.formats.shard_sets import shard_set_reader  # imports torch

        return shard_set_reader(source)
    from cardigan.data.formats.detection import open_reader  # imports torch

    return open_reader(source, labels)


def _seconds_per_pass(reader: Reader, findings: Findings, spec: DecodeSpec) -> float:
    indices = _evenly_spaced(_readable_indices(findings), NUM_TIMED)
    started_at = time.perf_counter()
    num_decoded = sum(_read_pixels(reader, index, spec) is not None for index in indices)
    return (time.perf_counter() - started_at) * findings.num_readable / num_decoded if num_decoded else 0.0


def _readable_indices(findings: Findings) -> list[int]:
    unusable = {entry.index for entry in findings.unreadable}
    return [index for index in range(findings.num_images) if index not in unusable]


def _evenly_spaced(indices: Sequence[int], count: int) -> list[int]:
    """Return at most `count` of the indices, evenly spaced."""
    return [indices[place] for place in evenly_spaced_indices(min(count, len(indices)), len(indices))]


def _read_pixels(reader: Reader, index: int, spec: DecodeSpec) -> np.ndarray | None:
    try:
        return decode_image(reader.read(index), spec)
    except UnreadableImage:
        return None  # it was readable during the scan


def write_contact_sheet(
    reader: Reader, findings: Findings, out: Path, max_pixels: int = MAX_PIXELS, overwrite: bool = False
) -> None:
    """Write a PNG of 100 evenly spaced images, then blank images, pairs of duplicates, and the smallest images.

    Raises CardiganError if the file exists and `overwrite` is false.
    """
    check_sheet_path(out, reader.name, overwrite)
    spec = DecodeSpec(CELL_SIZE, CELL_SIZE, 3, "pad", max_pixels)
    missing = np.full((CELL_SIZE, CELL_SIZE, 3), 128, np.uint8)
    sections = []
    for title, indices in _sheet_sections(findings):
        found = [_read_pixels(reader, index, spec) for index in indices]
        sections.append(Section(title, [missing if pixels is None else pixels for pixels in found]))
    atomic.write_bytes(out, contact_sheet(sections, CELL_SIZE))


def _sheet_sections(findings: Findings) -> Iterator[tuple[str, list[int]]]:
    sampled = _evenly_spaced(_readable_indices(findings), NUM_SAMPLED)
    yield f"{len(sampled):,} of {pluralize(findings.num_readable, 'image')}", sampled
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
    """Return the first two images of each group, for two rows of pairs."""
    return [entry.index for group in groups[:COLUMNS] for entry in group[:2]]


def check_sheet_path(out: Path, source: str, overwrite: bool) -> None:
    """Raise CardiganError for a path where a contact sheet cannot be written."""
    check_output_path(out, ".png", "--contact-sheet", "add --overwrite to replace it, or " if not overwrite else None)
    folder = Path(source).expanduser()
    if folder.is_dir() and out.absolute().resolve().is_relative_to(folder.resolve()):
        raise CardiganError(
            f"--contact-sheet {out} lies in the source {source} and would become one of its images: "
            "choose a path outside the source."
        )


def check_output_path(out: Path, suffix: str, option: str, alternative: str | None) -> None:
    """Raise CardiganError for an unusable path. `alternative` is advice if the file exists; None allows overwriting."""
    if out.suffix != suffix:
        raise CardiganError(f"{option} is {str(out)!r}: expected a name ending in {suffix}.")
    if out.is_dir() or (out.exists() and alternative is not None):
        raise CardiganError(f"{out} exists already: {alternative or ''}choose another {option}.")
    if not out.absolute().parent.is_dir():
        raise CardiganError(
            f"There is no folder {out.absolute().parent} to write into: create it, or choose another {option}."
        )
