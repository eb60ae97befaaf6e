"""The clean copy: a zip archive of the usable images of a source."""

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
from cardigan.data.quality.check import check_output_path
from cardigan.data.quality.findings import Findings
from cardigan.data.reader import Reader, StoredImage, UnreadableImage
from cardigan.errors import CardiganError
from cardigan.files import atomic

ZIP_TIMESTAMP = (1980, 1, 1, 0, 0, 0)
"""Modification time of all files in a clean archive, so that the same images give the same bytes."""


def check_clean_path(out: Path) -> None:
    """Raise CardiganError for a path where a clean copy cannot be written."""
    check_output_path(out, ".zip", "--write-clean", "")


def write_clean_archive(reader: Reader, findings: Findings, out: Path, drop_near_duplicates: bool = False) -> int:
    """Write the usable images to a zip archive and return their number.

    Images keep their bytes (arrays become PNG) and their names, made safe. Classes are written to dataset.json.
    Unreadable and blank images and duplicates of an earlier image are left out. `drop_near_duplicates` also leaves out
    all but the largest image of each near-duplicate group. The archive is written atomically.
    Raises CardiganError if the file exists or no image is usable.
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
        check_clean_path(out)  # another process may have written it meanwhile
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
                f"{reader.entry_name(index)} {error}, but it was readable before: check {reader.name} again."
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
    with open_image(stored, sys.maxsize) as image:  # the size was checked before
        suffix = (image.format or "").lower()
    # Readers recognize an image by its suffix and its format by its content.
    return suffix if suffix in IMAGE_SUFFIXES else "png"


def safe_name(title: str, index: int, count: int, suffix: str) -> str:
    """Return an image's path for the archive: relative, not hidden, with an image suffix.

    A title that is the image's index is padded with zeros.
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
    """Return the name, numbered if it is taken. On some systems A.jpg and a.jpg are the same file."""
    stem, _, suffix = name.rpartition(".")
    number, found = 1, name
    while found.casefold() in used_names:
        number += 1
        found = f"{stem}-{number}.{suffix}"
    used_names.add(found.casefold())
    return found
