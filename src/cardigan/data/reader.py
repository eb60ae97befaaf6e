"""The `Reader`: a source as numbered entries before decoding, each a file's bytes or an array, with optional labels.

Knows no file format. The modules in `formats` create readers; `decoding.py` turns entries into pixels.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np

from cardigan.errors import CardiganError, error_reason, escape_control_characters

StoredImage: TypeAlias = bytes | np.ndarray
"""The content of an image file, or pixels as [height, width] or [height, width, channels]."""


ProgressFn: TypeAlias = Callable[[int, int], None]
"""Called with the number of finished images and the total."""
MIN_IMAGES = 2
"""Images that training needs at least."""
SOURCE_CHANGED = "was changed or removed after the source was opened"
"""Why an image is unreadable whose file is not the one that was listed."""


class UnreadableImage(Exception):
    """An unusable image. The message continues a sentence that starts with its name: "is empty", "is truncated"."""


@dataclass(frozen=True)
class Reader:
    """The images of a source by index, always in the same order. Safe to use in a forked process."""

    name: str
    """The source as the user gave it."""
    num_images: int
    entry_name: Callable[[int], str]
    """Returns an image's name for messages: its path within the source, or its index."""
    read: Callable[[int], StoredImage]
    """Returns an entry. Raises UnreadableImage if it cannot or must not be read; never raises OSError."""
    fingerprint: str
    """A hash that changes with the images, as far as names, sizes and times show without reading them all."""
    labels: Sequence[str | int | None] | None = None
    """The class of each image as the source gives it, None for an unlabeled image. Default: a source without labels."""
    no_cache: bool = False
    """Whether caching is off, because another source may have the same fingerprint, as for an object in memory."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Number of entries that are not images, by reason ("not an image", "hidden"). They do not count as images."""
    notes: tuple[str, ...] = ()
    """What the user should know about the choice of images and classes."""

    def __len__(self) -> int:
        return self.num_images


def fingerprint(parts: Iterable[str | int | bytes]) -> str:
    """Return a hash of the names, sizes and times of a source's entries."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = part if isinstance(part, bytes) else str(part).encode(errors="surrogateescape")
        digest.update(f"{len(content)}:".encode() + content)
    return digest.hexdigest()


def stat_signature(path: Path) -> str:
    """Return a file's size and modification time. Raises CardiganError if it is not accessible."""
    try:
        status = path.stat()
    except OSError as error:
        raise CardiganError(
            f"{str(path)!r} cannot be opened ({error_reason(error)}): expected a readable file."
        ) from None
    return f"{status.st_size} {status.st_mtime_ns}"


def evenly_spaced_indices(count: int, total: int) -> list[int]:
    """Return `count` indices spaced evenly over `total`: a source's first images may all be of one class."""
    return [place * total // count for place in range(count)]


def printable(name: str | bytes) -> str:
    """Return a file name of any encoding as printable text, without control characters."""
    content = name if isinstance(name, bytes) else name.encode(errors="surrogateescape")
    return escape_control_characters(content.decode(errors="backslashreplace"), keep="")
