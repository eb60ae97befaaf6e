"""What pictures are before they are decoded: numbered entries, each the bytes of a file or an array, with labels if there are any.

Knows no file format; the readers in `formats` fill it, `decoding.py` turns entries into pixels.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

StoredImage: TypeAlias = bytes | np.ndarray
"""A file's content, or pixels as [height, width] or [height, width, channels]."""


class UnreadableImage(Exception):
    """A picture that cannot be used; says why, in words that follow its name: "is empty", "is cut off"."""


@dataclass(frozen=True)
class Reader:
    """A source's pictures by number, always in the same order. Safe to use in a process forked from the one that made it."""

    name: str
    """What the user gave."""
    num_images: int
    entry_name: Callable[[int], str]
    """What a picture is called in a message: its path within the source, or its number."""
    read: Callable[[int], StoredImage]
    """Returns an entry; raises Unreadable for one that cannot be read or must not be, FileNotFoundError and other OSErrors never."""
    fingerprint: str
    """Changes if the pictures do, as far as names, sizes and times tell without reading them all."""
    labels: Sequence[str | int | None] | None = None
    """Each picture's class as the source tells it, None where it tells none; None for a source without labels."""
    no_cache: bool = False
    """Whether the fingerprint may be another source's too, as of an object in memory: nothing is kept of such pictures."""
    skipped: dict[str, int] = field(default_factory=dict)
    """How many entries were not taken for pictures, by reason ("not an image", "hidden"); they count as nothing."""

    def __len__(self) -> int:
        return self.num_images


def fingerprint(parts: Iterable[str | int | bytes]) -> str:
    """Return a hash of what a source's entries are called and how large and old they are."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = part if isinstance(part, bytes) else str(part).encode(errors="surrogateescape")
        digest.update(f"{len(content)}:".encode() + content)
    return digest.hexdigest()


def printable(name: str | bytes) -> str:
    """Return a file name of any encoding as text that can be printed."""
    text = name.decode(errors="surrogateescape") if isinstance(name, bytes) else name
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
