"""File names: which entries of a folder or archive are images. Also errors about files, and per-process resources.

Opens no files itself.
"""

import os
import unicodedata
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
    """Return why an entry is not an image according to its name; "" for an image."""
    if any(_is_hidden(part) for part in path.split("/")):
        return HIDDEN
    stem, _, suffix = path.rpartition(".")
    return "" if stem and suffix.lower() in IMAGE_SUFFIXES else NOT_AN_IMAGE


def _is_hidden(part: str) -> bool:
    return part.lower() in SYSTEM_FILES or (part.startswith(".") and part not in {".", ".."})


def no_images_error(source: str, skipped: Mapping[str, int]) -> CardiganError:
    """Return the error for a source without images. It lists what was skipped."""
    found = ", ".join(f"{count:,} {reason}" for reason, count in sorted(skipped.items())) or "it is empty"
    return CardiganError(
        f"{source!r} holds no images ({found}): expected files that end in {', '.join(sorted(IMAGE_SUFFIXES))}."
    )


def error_reason(error: BaseException) -> str:
    """Return the first line of an error's message, for use in another message."""
    message = (error.strerror if isinstance(error, OSError) else None) or str(error).strip() or type(error).__name__
    return message.splitlines()[0][:200].rstrip(".")


def stat_signature(path: Path) -> str:
    """Return a file's size and modification time. Raises CardiganError if it is not accessible."""
    try:
        status = path.stat()
    except OSError as error:
        raise CardiganError(
            f"{str(path)!r} cannot be opened ({error_reason(error)}): expected a readable file."
        ) from None
    return f"{status.st_size} {status.st_mtime_ns}"


class PerProcess(Generic[Resource]):
    """An open file or a lock per process: a forked process neither uses nor closes its parent's."""

    def __init__(self, open_resource: Callable[[], Resource]) -> None:
        self._open_resource = open_resource
        self._resources: dict[int, Resource] = {}

    def __call__(self) -> Resource:
        process = os.getpid()
        if process not in self._resources:
            self._resources[process] = self._open_resource()
        return self._resources[process]


def compose(name: str) -> str:
    """Return a name in Unicode's composed form (NFC). Some systems store names in the decomposed form."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def normalize_path(path: str) -> str:
    """Return a path inside an archive or a label file with forward slashes and no leading `./`."""
    return path.replace("\\", "/").removeprefix("./")
