"""A source of pictures checked before training: what is found in it, a sheet to look at, and a copy without what is wrong.

Opens and writes; what is seen is `data/doctor.py`'s business, what to do about it `data/advice.py`'s.
"""

import io
import json
import os
import re
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cardigan.data.checking.advice import MAX_PIXELS, counted, frame_for
from cardigan.data.checking.findings import Entry, Findings, findings_of
from cardigan.data.checking.looking import Told, all_looks
from cardigan.data.decoding import Frame, decoded, from_array, opened
from cardigan.data.formats.entries import SUFFIXES, why_not
from cardigan.data.reader import Reader, Stored, Unreadable
from cardigan.data.sharded.names import is_shards
from cardigan.errors import CardiganError
from cardigan.figures.contact import COLUMNS, Section, contact_sheet
from cardigan.recipes import DEFAULT_RECIPES
from cardigan.run import atomic

CELL = 96
SAMPLED = 100
"""Pictures on a sheet that are taken evenly from the whole source."""
TIMED = 32
"""Pictures that are decoded again to measure how long that takes."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of all files in a clean archive: the same pictures give the same bytes."""


def check_source(
    source: str | Reader, labels: str = "", workers: int | None = None, max_pixels: int = MAX_PIXELS, told: Told | None = None
) -> Findings:
    """Return what is in a source and what is wrong with it. Every picture is decoded once.

    `labels` and `max_pixels` are as in `DataConfig`; `workers` processes look at the pictures, one for each core if it is None, this one if it
    is 0; `told` hears how far they are. Raises CardiganError for a source that cannot be opened, or if a process dies.
    """
    if workers is not None and workers < 0:
        raise CardiganError(f"workers is {workers}: expected a number of processes, or 0 to look in this one.")
    if max_pixels < 1:
        raise CardiganError(f"max_pixels is {max_pixels}: expected at least 1 pixel.")
    reader = open_source(source, labels)
    findings = findings_of(reader, all_looks(reader, max_pixels, workers, told))
    return replace(findings, seconds_per_pass=_seconds_per_pass(reader, findings, frame_for(findings, max_pixels)))


def open_source(source: str | Reader, labels: str = "") -> Reader:
    """Return the pictures of a source; raises CardiganError for one that there is nothing to check in."""
    if isinstance(source, Reader):
        if labels:
            raise CardiganError(f"labels is {labels!r}, but {source.name} is opened already: give the labels where it is opened.")
        return source
    if source in DEFAULT_RECIPES:
        raise CardiganError(f"{source} comes with Cardigan and was checked: give your own pictures, or train with `cardigan train {source}`.")
    if is_shards(source):
        raise CardiganError(f"{source!r} is a set of shards, which is never read as a whole: give one of its tar files.")
    from cardigan.data.formats.opening import open_reader  # knows tensors too, and so imports torch

    return open_reader(source, labels)


def _seconds_per_pass(reader: Reader, findings: Findings, frame: Frame) -> float:
    chosen = evenly(_readable(findings), TIMED)
    began = time.perf_counter()
    done = sum(_pixels(reader, index, frame) is not None for index in chosen)
    return (time.perf_counter() - began) * findings.readable / done if done else 0.0


def _readable(findings: Findings) -> list[int]:
    unusable = {entry.index for entry in findings.unreadable}
    return [index for index in range(findings.count) if index not in unusable]


def evenly(indices: Sequence[int], count: int) -> list[int]:
    """Return at most `count` of the indices, evenly spread."""
    if len(indices) <= count:
        return list(indices)
    return [indices[place * len(indices) // count] for place in range(count)]


def _pixels(reader: Reader, index: int, frame: Frame) -> np.ndarray | None:
    try:
        return decoded(reader.read(index), frame)
    except Unreadable:
        return None  # it was readable a moment ago


def write_sheet(reader: Reader, findings: Findings, out: Path, max_pixels: int = MAX_PIXELS, overwrite: bool = False) -> None:
    """Write a PNG of a hundred pictures from all over the source, then of the worst: blank, repeated side by side, smallest.

    Raises CardiganError for a file that is there already, unless it may be overwritten.
    """
    refuse_sheet(out, reader.name, overwrite)
    frame = Frame(CELL, CELL, 3, "pad", max_pixels)
    missing = np.full((CELL, CELL, 3), 128, np.uint8)
    sections = []
    for title, indices in _sheet_rows(findings):
        found = [_pixels(reader, index, frame) for index in indices]
        sections.append(Section(title, [missing if pixels is None else pixels for pixels in found]))
    atomic.write_bytes(out, contact_sheet(sections, CELL))


def _sheet_rows(findings: Findings) -> Iterator[tuple[str, list[int]]]:
    sampled = evenly(_readable(findings), SAMPLED)
    yield f"{len(sampled):,} of {counted(findings.readable, 'picture')}", sampled
    yield f"blank: {len(findings.blank):,}", [entry.index for entry in findings.blank[:COLUMNS]]
    yield f"equal, side by side: {counted(len(findings.copies), 'group')}", _pairs([group.members for group in findings.copies])
    yield f"nearly the same, side by side: {counted(len(findings.alike), 'group')}", _pairs([group.members for group in findings.alike])
    if findings.sizes is not None and findings.sizes.distinct > 1:
        yield "the smallest", [entry.index for entry in findings.sizes.least]


def _pairs(groups: Sequence[Sequence[Entry]]) -> list[int]:
    """Return the first two of each group, for two rows of pairs."""
    return [entry.index for group in groups[:COLUMNS] for entry in group[:2]]


def refuse_sheet(out: Path, source: str, overwrite: bool) -> None:
    """Raise CardiganError for a place where no sheet may be written."""
    _refuse(out, ".png", "--sheet", "add --overwrite to replace it, or " if not overwrite else None)
    folder = Path(source).expanduser()
    if folder.is_dir() and out.absolute().resolve().is_relative_to(folder.resolve()):
        raise CardiganError(f"--sheet {out} lies in the source {source}, whose picture it would be from then on: choose a place outside.")


def refuse_clean(out: Path) -> None:
    """Raise CardiganError for a place where no clean copy may be written."""
    _refuse(out, ".zip", "--write-clean", "")


def _refuse(out: Path, suffix: str, option: str, instead: str | None) -> None:
    """`instead` is what else can be done about a file that is there; None where it may be replaced."""
    if out.suffix != suffix:
        raise CardiganError(f"{option} is {str(out)!r}: expected a name ending in {suffix}.")
    if out.is_dir() or (out.exists() and instead is not None):
        raise CardiganError(f"{out} exists already: {instead or ''}choose another {option}.")
    if not out.absolute().parent.is_dir():
        raise CardiganError(f"There is no folder {out.absolute().parent} to write into: make it, or choose another {option}.")


def write_clean(reader: Reader, findings: Findings, out: Path, near: bool = False) -> int:
    """Write the pictures that can be trained on to a zip archive, and return how many they are.

    They keep their bytes (arrays become PNG) and their names, made safe; their classes are told in dataset.json. Left out are those that are
    unreadable, blank, or equal to an earlier one, and with `near` all but the largest of those that are nearly the same, mirrored or not.
    The archive appears whole or not at all, and never in the place of another file: CardiganError is raised for that.
    """
    refuse_clean(out)
    left_out = findings.spoiled | (findings.nearly_repeated if near else frozenset())
    kept = [index for index in range(findings.count) if index not in left_out]
    if not kept:
        raise CardiganError(f"Nothing in {findings.source} can be trained on, so there is nothing to write to {out}.")
    with atomic.replacement(out) as temporary:
        with temporary.open("wb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                _fill(archive, reader, kept)
            file.flush()
            os.fsync(file.fileno())
        refuse_clean(out)  # somebody else may have written it meanwhile
    return len(kept)


def _fill(archive: zipfile.ZipFile, reader: Reader, kept: Sequence[int]) -> None:
    taken: set[str] = set()
    labels = []
    for index in kept:
        try:
            stored = reader.read(index)
            name = safe_name(reader.title(index), index, len(reader), _suffix(stored))
        except Unreadable as error:
            raise CardiganError(f"{reader.title(index)} {error}, though it could be read before: check {reader.name} again.") from None
        name = _unused(name, taken)
        archive.writestr(_member(name), _content(stored))
        if reader.labels is not None and reader.labels[index] is not None:
            labels.append([name, reader.labels[index]])
    if labels:
        archive.writestr(_member("dataset.json"), json.dumps({"labels": labels}))


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, EPOCH)
    info.external_attr = 0o644 << 16
    return info


def _content(stored: Stored) -> bytes:
    if isinstance(stored, bytes):
        return stored
    buffer = io.BytesIO()
    from_array(stored).save(buffer, format="PNG")
    return buffer.getvalue()


def _suffix(stored: Stored) -> str:
    if not isinstance(stored, bytes):
        return "png"
    with opened(stored, sys.maxsize) as image:  # how large it may be was decided before
        suffix = (image.format or "").lower()
    return suffix if suffix in SUFFIXES else "png"  # readers know a picture by its name, and its format by its content


def safe_name(title: str, index: int, count: int, suffix: str) -> str:
    """Return a picture's path as it may stand in an archive: within it, not hidden, with the suffix of a picture.

    A title that is the picture's number gets as many digits as the last one has.
    """
    number = f"{index:0{len(str(count - 1))}d}"
    parts = [re.sub(r"[\x00-\x1f\x7f:]", "_", part).strip().lstrip(".") for part in re.split(r"[/\\]", number if title == str(index) else title)]
    name = "/".join(part for part in parts if part) or number
    if why_not(name):
        name = f"{name}.{suffix}"
    return f"{number}.{suffix}" if why_not(name) else name


def _unused(name: str, taken: set[str]) -> str:
    """Return the name, numbered if it is taken: on some systems A.jpg and a.jpg are one file."""
    stem, _, suffix = name.rpartition(".")
    number, found = 1, name
    while found.casefold() in taken:
        number += 1
        found = f"{stem}-{number}.{suffix}"
    taken.add(found.casefold())
    return found
