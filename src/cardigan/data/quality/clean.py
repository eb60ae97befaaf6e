"""A ZIP of the images that are worth training on."""

import io
import json
import os
import re
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from cardigan.data.decoding import image_from_array, open_image
from cardigan.data.formats.file_names import IMAGE_SUFFIXES, skip_reason
from cardigan.data.quality.check import _check_output_path
from cardigan.data.quality.findings import Findings
from cardigan.data.reader import Reader, StoredImage, UnreadableImage
from cardigan.errors import CardiganError
from cardigan.files import atomic

ZIP_TIMESTAMP = (1980, 1, 1, 0, 0, 0)
"""The time of all files in a clean archive: the same pictures give the same bytes."""


def check_clean_path(out: Path) -> None:
    """Raise CardiganError for a place where no clean copy may be written."""
    _check_output_path(out, ".zip", "--write-clean", "")


def write_clean_archive(reader: Reader, findings: Findings, out: Path, drop_near_duplicates: bool = False) -> int:
    """Write the pictures that can be trained on to a zip archive, and return how many they are.

    They keep their bytes (arrays become PNG) and their names, made safe; their classes are told in dataset.json. Left out are those that are
    unreadable, blank, or equal to an earlier one, and with `drop_near_duplicates` all but the largest of those that are nearly the same, mirrored or not.
    The archive appears whole or not at all, and never in the place of another file: CardiganError is raised for that.
    """
    check_clean_path(out)
    excluded = findings.dropped_indices | (findings.near_duplicate_indices if drop_near_duplicates else frozenset())
    indices = [index for index in range(findings.num_images) if index not in excluded]
    if not indices:
        raise CardiganError(f"Nothing in {findings.source} can be trained on, so there is nothing to write to {out}.")
    with atomic.atomic_path(out) as temporary:
        with temporary.open("wb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                _write_images(archive, reader, indices)
            file.flush()
            os.fsync(file.fileno())
        check_clean_path(out)  # somebody else may have written it meanwhile
    return len(indices)


def _write_images(archive: zipfile.ZipFile, reader: Reader, indices: Sequence[int]) -> None:
    used_names: set[str] = set()
    labels = []
    for index in indices:
        try:
            stored = reader.read(index)
            name = safe_name(reader.entry_name(index), index, len(reader), _suffix(stored))
        except UnreadableImage as error:
            raise CardiganError(
                f"{reader.entry_name(index)} {error}, though it could be read before: check {reader.name} again."
            ) from None
        name = _unique_name(name, used_names)
        archive.writestr(_zip_entry(name), _image_bytes(stored))
        if reader.labels is not None and reader.labels[index] is not None:
            labels.append([name, reader.labels[index]])
    if labels:
        archive.writestr(_zip_entry("dataset.json"), json.dumps({"labels": labels}))


def _zip_entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, ZIP_TIMESTAMP)
    info.external_attr = 0o644 << 16
    return info


def _image_bytes(stored: StoredImage) -> bytes:
    if isinstance(stored, bytes):
        return stored
    buffer = io.BytesIO()
    image_from_array(stored).save(buffer, format="PNG")
    return buffer.getvalue()


def _suffix(stored: StoredImage) -> str:
    if not isinstance(stored, bytes):
        return "png"
    with open_image(stored, sys.maxsize) as image:  # how large it may be was decided before
        suffix = (image.format or "").lower()
    return (
        suffix if suffix in IMAGE_SUFFIXES else "png"
    )  # readers know a picture by its name, and its format by its content


def safe_name(title: str, index: int, count: int, suffix: str) -> str:
    """Return a picture's path as it may stand in an archive: within it, not hidden, with the suffix of a picture.

    A title that is the picture's number gets as many digits as the last one has.
    """
    number = f"{index:0{len(str(count - 1))}d}"
    parts = [
        re.sub(r"[\x00-\x1f\x7f:]", "_", part).strip().lstrip(".")
        for part in re.split(r"[/\\]", number if title == str(index) else title)
    ]
    name = "/".join(part for part in parts if part) or number
    if skip_reason(name):
        name = f"{name}.{suffix}"
    return f"{number}.{suffix}" if skip_reason(name) else name


def _unique_name(name: str, used_names: set[str]) -> str:
    """Return the name, numbered if it is taken: on some systems A.jpg and a.jpg are one file."""
    stem, _, suffix = name.rpartition(".")
    number, found = 1, name
    while found.casefold() in used_names:
        number += 1
        found = f"{stem}-{number}.{suffix}"
    used_names.add(found.casefold())
    return found
