"""Which entries of a folder or archive are pictures, what is said where none is, and what must not be shared with a forked process.

Opens nothing itself.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from cardigan.errors import CardiganError

SUFFIXES = frozenset({"jpg", "jpeg", "jpe", "png", "webp", "bmp", "gif", "tif", "tiff", "avif", "ppm", "pgm"})
SYSTEM = frozenset({"__macosx", "thumbs.db", "desktop.ini", "lost+found"})
HIDDEN = "hidden"
NO_PICTURE = "not a picture"

Opened = TypeVar("Opened")


def why_not(path: str) -> str:
    """Return why an entry is not taken for a picture, going by its name; "" for a picture."""
    if any(_hidden(part) for part in path.split("/")):
        return HIDDEN
    stem, _, suffix = path.rpartition(".")
    return "" if stem and suffix.lower() in SUFFIXES else NO_PICTURE


def _hidden(part: str) -> bool:
    return part.lower() in SYSTEM or (part.startswith(".") and part not in {".", ".."})


def no_pictures(source: str, passed_over: Mapping[str, int]) -> CardiganError:
    """Return the error for a source without pictures, saying what is there instead."""
    instead = ", ".join(f"{count:,} {reason}" for reason, count in sorted(passed_over.items())) or "it is empty"
    return CardiganError(f"{source!r} holds no pictures ({instead}): expected files that end in {', '.join(sorted(SUFFIXES))}.")


def reason(error: BaseException) -> str:
    """Return the first line of what an error says, for a sentence of ours."""
    said = (error.strerror if isinstance(error, OSError) else None) or str(error).strip() or type(error).__name__
    return said.splitlines()[0][:200].rstrip(".")


def stamp(path: Path) -> str:
    """Return a file's size and age; raises CardiganError where it cannot be looked at."""
    try:
        status = path.stat()
    except OSError as error:
        raise CardiganError(f"{str(path)!r} cannot be opened ({reason(error)}): expected a file that may be read.") from None
    return f"{status.st_size} {status.st_mtime_ns}"


class PerProcess(Generic[Opened]):
    """An open file, or a lock, of which each process has its own: a forked one does not use, nor close, its parent's."""

    def __init__(self, opened: Callable[[], Opened]) -> None:
        self._open = opened
        self._opened: dict[int, Opened] = {}

    def __call__(self) -> Opened:
        process = os.getpid()
        if process not in self._opened:
            self._opened[process] = self._open()
        return self._opened[process]
