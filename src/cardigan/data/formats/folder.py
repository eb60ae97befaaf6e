"""Pictures that are files in a folder, flat or nested; links are followed, and no folder is listed twice.

Knows names, sizes and times; reads a file only when its picture is asked for.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path

from cardigan.data.formats.file_names import HIDDEN, NOT_AN_IMAGE, error_reason, skip_reason
from cardigan.data.formats.labels import DATASET_JSON, with_dataset_json
from cardigan.data.reader import Reader, UnreadableImage, fingerprint, printable
from cardigan.errors import CardiganError

ALREADY_LISTED = "a folder already listed"
MISSING = "missing"


@dataclass(frozen=True)
class FolderListing:
    """What lies in a folder. Paths are within it, in any encoding, sorted by their bytes."""

    images: list[str]
    signatures: list[str]
    """Size and time of each picture."""
    others: list[str]
    skipped: dict[str, int]


def list_folder(folder: Path) -> FolderListing:
    """Return what lies in a folder and its sub-folders; raises CardiganError for one that must not be listed."""
    signatures: dict[str, str] = {}
    others: list[str] = []
    skipped: Counter[str] = Counter()
    try:
        for path, entry, reason in _walk(folder.resolve(), skipped):
            signature = "" if reason else _signature(entry)
            if signature:
                signatures[path] = signature
            else:
                others.append(path)
    except OSError as error:
        where = printable(str(error.filename or folder))
        raise CardiganError(
            f"{where!r} cannot be listed ({error_reason(error)}): allow it to be read, or take it out of the source."
        ) from None
    if others:
        skipped[NOT_AN_IMAGE] += len(others)
    images = sorted(signatures, key=os.fsencode)
    return FolderListing(images, [signatures[path] for path in images], sorted(others, key=os.fsencode), dict(skipped))


def _walk(root: Path, skipped: Counter[str]) -> Iterator[tuple[str, os.DirEntry[str], str]]:
    """Yield all that is no folder and not hidden: its path within the root, what the system tells of it, and why it is no picture.

    A linked folder waits until all others are listed, so that its pictures have their own paths if it lies in the source.
    """
    visited = {
        _inode(parent) for parent in root.parents
    }  # a link out of the source and above it would bring in all the disk
    folders = [(False, "")]
    while folders:
        folder = heappop(folders)[1]
        inode = _inode(root / folder)
        if inode in visited:
            skipped[ALREADY_LISTED] += 1
            continue
        visited.add(inode)
        with os.scandir(root / folder) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                reason = skip_reason(entry.name)
                if reason == HIDDEN:
                    skipped[HIDDEN] += 1
                elif _is_folder(entry):
                    heappush(folders, (entry.is_symlink(), path))
                else:
                    yield path, entry, reason


def _inode(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _signature(entry: os.DirEntry[str]) -> str:
    """Return a file's size and time, or "" for what is no file: opening a named pipe would wait for ever."""
    try:
        status = entry.stat()
    except OSError:
        return MISSING  # a link to nothing: reading it says so
    return f"{status.st_size} {status.st_mtime_ns}" if stat.S_ISREG(status.st_mode) else ""


def folder_reader(folder: Path, listing: FolderListing) -> Reader:
    """Return the pictures that were found in a folder, with the classes that its dataset.json tells, if there is one."""

    def read(index: int) -> bytes:
        try:
            return (folder / listing.images[index]).read_bytes()
        except (OSError, MemoryError) as error:
            raise UnreadableImage(f"cannot be read ({error_reason(error)})") from None

    source_fingerprint = fingerprint(
        f"{path}/{mark}" for path, mark in zip(listing.images, listing.signatures, strict=True)
    )
    reader = Reader(
        str(folder),
        len(listing.images),
        lambda index: printable(listing.images[index]),
        read,
        source_fingerprint,
        skipped=listing.skipped,
    )
    return with_dataset_json(reader, (folder / DATASET_JSON).read_bytes()) if DATASET_JSON in listing.others else reader
