"""Image files in a folder, flat or nested. Links are followed, and no folder is listed twice.

Lists names, sizes and times. Reads a file only when its image is requested.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path

from cardigan.data.formats.file_names import HIDDEN, NOT_AN_IMAGE, skip_reason
from cardigan.data.formats.labels import DATASET_JSON, with_dataset_json
from cardigan.data.reader import SOURCE_CHANGED, Reader, UnreadableImage, fingerprint, printable
from cardigan.errors import CardiganError, error_reason

ALREADY_LISTED = "a folder already listed"
MISSING = "missing"


@dataclass(frozen=True)
class FolderListing:
    """The content of a folder. Paths are relative to it, in any encoding, sorted by their bytes."""

    images: list[str]
    signatures: list[str]
    """Size and modification time of each image."""
    others: list[str]
    skipped: dict[str, int]


def list_folder(folder: Path) -> FolderListing:
    """Return the content of a folder and its subfolders. Raises CardiganError if one is not readable."""
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
            f"{where!r} cannot be listed ({error_reason(error)}): make it readable, or remove it from the source."
        ) from None
    if others:
        skipped[NOT_AN_IMAGE] += len(others)
    images = sorted(signatures, key=os.fsencode)
    return FolderListing(images, [signatures[path] for path in images], sorted(others, key=os.fsencode), dict(skipped))


def _walk(root: Path, skipped: Counter[str]) -> Iterator[tuple[str, os.DirEntry[str], str]]:
    """Yield each visible file: its path within the root, its directory entry, and why it is not an image ("" if it is).

    Linked folders are listed last, so that images of a folder inside the source keep their real paths.
    """
    visited = {_inode(parent) for parent in root.parents}  # a link to a parent folder would add the whole disk
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
    """Return a file's size and time, or "" for anything but a regular file: opening a named pipe would block."""
    try:
        status = entry.stat()
    except OSError:
        return MISSING  # a broken link: the read reports it
    return _signature_of(status)


def _signature_of(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns}" if stat.S_ISREG(status.st_mode) else ""


def folder_reader(folder: Path, listing: FolderListing) -> Reader:
    """Return the listed images of a folder, with the classes of its dataset.json if there is one."""

    def read(index: int) -> bytes:
        signature = listing.signatures[index]
        try:
            with open(folder / listing.images[index], "rb", opener=_open_without_waiting) as file:
                if signature != MISSING and _signature_of(os.fstat(file.fileno())) != signature:
                    raise UnreadableImage(SOURCE_CHANGED)
                return file.read()
        except (OSError, MemoryError) as error:
            if isinstance(error, FileNotFoundError | NotADirectoryError) and signature != MISSING:
                raise UnreadableImage(SOURCE_CHANGED) from None
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
    return with_dataset_json(
        reader,
        {
            path.rpartition("/")[0]: (folder / path).read_bytes()
            for path in listing.others
            if path.rpartition("/")[2] == DATASET_JSON and (folder / path).is_file()
        },
    )


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file that may have become a named pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
