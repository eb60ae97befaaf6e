"""Which entries of a folder or archive are pictures, what is said where none is, and what must not be shared with a forked process.

Opens nothing itself.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from cardigan.errors import CardiganError

IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "jpe", "png", "webp", "bmp", "gif", "tif", "tiff", "avif", "ppm", "pgm"})
SYSTEM_FILES = frozenset({"__macosx", "thumbs.db", "desktop.ini", "lost+found"})
HIDDEN = "hidden"
NOT_AN_IMAGE = "not an image"

Resource = TypeVar("Resource")


def skip_reason(path: str) -> str:
    """Return why an entry is not taken for a picture, going by its name; "" for a picture."""
    if any(_is_hidden(part) for part in path.split("/")):
        return HIDDEN
    stem, _, suffix = path.rpartition(".")
    return "" if stem and suffix.lower() in IMAGE_SUFFIXES else NOT_AN_IMAGE


def _is_hidden(part: str) -> bool:
    return part.lower() in SYSTEM_FILES or (part.startswith(".") and part not in {".", ".."})


def no_images_error(source: str, skipped: Mapping[str, int]) -> CardiganError:
    """Return the error for a source without pictures, saying what is there instead."""
    found = ", ".join(f"{count:,} {reason}" for reason, count in sorted(skipped.items())) or "it is empty"
    return CardiganError(
        f"{source!r} holds no pictures ({found}): expected files that end in {', '.join(sorted(IMAGE_SUFFIXES))}."
    )


def error_reason(error: BaseException) -> str:
    """Return the first line of what an error says, for a sentence of ours."""
    message = (error.strerror if isinstance(error, OSError) else None) or str(error).strip() or type(error).__name__
    return message.splitlines()[0][:200].rstrip(".")


def stat_signature(path: Path) -> str:
    """Return a file's size and age; raises CardiganError where it cannot be looked at."""
    try:
        status = path.stat()
    except OSError as error:
        raise CardiganError(
            f"{str(path)!r} cannot be opened ({error_reason(error)}): expected a file that may be read."
        ) from None
    return f"{status.st_size} {status.st_mtime_ns}"


class PerProcess(Generic[Resource]):
    """An open file, or a lock, of which each process has its own: a forked one does not use, nor close, its parent's."""

    def __init__(self, open_resource: Callable[[], Resource]) -> None:
        self._open_resource = open_resource
        self._resources: dict[int, Resource] = {}

    def __call__(self) -> Resource:
        process = os.getpid()
        if process not in self._resources:
            self._resources[process] = self._open_resource()
        return self._resources[process]
