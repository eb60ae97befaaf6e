"""Changes of a source's files while they are read.

Compares sizes and times only.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cardigan.data.reader import SOURCE_CHANGED, Reader, StoredImage, UnreadableImage, stat_signature
from cardigan.errors import CardiganError

INTERVAL_SECONDS = 1.0
"""Seconds between two comparisons."""


def watch_files(reader: Reader, files: Sequence[Path]) -> Reader:
    """Return the reader with all images unreadable as soon as one of these files is found changed or gone."""
    before = [stat_signature(file) for file in files]
    compared_at, changed = time.monotonic(), False

    def has_changed() -> bool:
        nonlocal compared_at, changed
        compared_at = time.monotonic()
        changed = changed or [_signature(file) for file in files] != before
        return changed

    def read(index: int) -> StoredImage:
        if (changed or time.monotonic() - compared_at >= INTERVAL_SECONDS) and has_changed():
            raise UnreadableImage(SOURCE_CHANGED)
        try:
            return reader.read(index)
        except UnreadableImage:
            if has_changed():
                raise UnreadableImage(SOURCE_CHANGED) from None
            raise

    return replace(reader, read=read)


def _signature(file: Path) -> str:
    try:
        return stat_signature(file)
    except CardiganError:
        return "gone"
