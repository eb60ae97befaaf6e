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

from cardigan.data.formats.entries import HIDDEN, NO_PICTURE, reason, why_not
from cardigan.data.formats.labels import DATASET_JSON, with_dataset_json
from cardigan.data.reader import Reader, Unreadable, fingerprint, shown
from cardigan.errors import CardiganError

AGAIN = "a folder listed already"
MISSING = "missing"


@dataclass(frozen=True)
class Listing:
    """What lies in a folder. Paths are within it, in any encoding, sorted by their bytes."""

    pictures: list[str]
    marks: list[str]
    """Size and time of each picture."""
    others: list[str]
    passed_over: dict[str, int]


def listing(folder: Path) -> Listing:
    """Return what lies in a folder and its sub-folders; raises CardiganError for one that must not be listed."""
    marks: dict[str, str] = {}
    others: list[str] = []
    passed_over: Counter[str] = Counter()
    try:
        for path, entry, why in _files(folder.resolve(), passed_over):
            mark = "" if why else _mark(entry)
            if mark:
                marks[path] = mark
            else:
                others.append(path)
    except OSError as error:
        where = shown(str(error.filename or folder))
        raise CardiganError(f"{where!r} cannot be listed ({reason(error)}): allow it to be read, or take it out of the source.") from None
    if others:
        passed_over[NO_PICTURE] += len(others)
    pictures = sorted(marks, key=os.fsencode)
    return Listing(pictures, [marks[path] for path in pictures], sorted(others, key=os.fsencode), dict(passed_over))


def _files(root: Path, passed_over: Counter[str]) -> Iterator[tuple[str, os.DirEntry[str], str]]:
    """Yield all that is no folder and not hidden: its path within the root, what the system tells of it, and why it is no picture.

    A linked folder waits until all others are listed, so that its pictures have their own paths if it lies in the source.
    """
    seen = {_identity(parent) for parent in root.parents}  # a link out of the source and above it would bring in all the disk
    waiting = [(False, "")]
    while waiting:
        inside = heappop(waiting)[1]
        identity = _identity(root / inside)
        if identity in seen:
            passed_over[AGAIN] += 1
            continue
        seen.add(identity)
        with os.scandir(root / inside) as entries:
            for entry in entries:
                path = f"{inside}/{entry.name}" if inside else entry.name
                why = why_not(entry.name)
                if why == HIDDEN:
                    passed_over[HIDDEN] += 1
                elif _is_folder(entry):
                    heappush(waiting, (entry.is_symlink(), path))
                else:
                    yield path, entry, why


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _mark(entry: os.DirEntry[str]) -> str:
    """Return a file's size and time, or "" for what is no file: opening a named pipe would wait for ever."""
    try:
        status = entry.stat()
    except OSError:
        return MISSING  # a link to nothing: reading it says so
    return f"{status.st_size} {status.st_mtime_ns}" if stat.S_ISREG(status.st_mode) else ""


def folder_reader(folder: Path, found: Listing) -> Reader:
    """Return the pictures that were found in a folder, with the classes that its dataset.json tells, if there is one."""

    def read(index: int) -> bytes:
        try:
            return (folder / found.pictures[index]).read_bytes()
        except (OSError, MemoryError) as error:
            raise Unreadable(f"cannot be read ({reason(error)})") from None

    mark = fingerprint(f"{path}/{mark}" for path, mark in zip(found.pictures, found.marks, strict=True))
    reader = Reader(str(folder), len(found.pictures), lambda index: shown(found.pictures[index]), read, mark, passed_over=found.passed_over)
    return with_dataset_json(reader, (folder / DATASET_JSON).read_bytes()) if DATASET_JSON in found.others else reader
