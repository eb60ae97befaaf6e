"""A journal that is still being written, read from its end: lines, events, numbers."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cardigan.run.journal import Event

CHUNK_BYTES = 1 << 20


MAX_LINE_BYTES = 1 << 20
"""Bytes of one line; a longer one is malformed."""


MAX_EXACT_INTEGER = 2**53


PROGRESS_PREFIX = b'{"kind": "progress"'
"""How the trainer begins a line of progress; another spelling is only slower."""


@dataclass
class TailReader:
    """Whole new lines of a file that is appended to, with the offset behind each; torn ones wait for their rest."""

    path: Path
    offset: int = 0
    inode: int | None = None
    size: int = 0
    """How long the file was when it was looked at."""

    def reset_if_replaced(self) -> bool:
        """Return whether the file is another one than before, or shorter: then reading begins at its start. Raises OSError."""
        file_stat = self.path.stat()
        is_replaced = self.inode is not None and (file_stat.st_ino != self.inode or file_stat.st_size < self.offset)
        self.inode, self.size = file_stat.st_ino, file_stat.st_size
        if is_replaced:
            self.offset = 0
        return is_replaced

    def read_lines(self, up_to: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Yield (offset after the line, the line without its end), up to an offset; raises OSError."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            start, pending = self.offset, b""
            while chunk := file.read(CHUNK_BYTES if up_to is None else min(CHUNK_BYTES, up_to - start - len(pending))):
                *complete_lines, pending = (pending + chunk).split(b"\n")
                for line in complete_lines:
                    start += len(line) + 1
                    self.offset = start
                    yield start, line
                if len(pending) > MAX_LINE_BYTES:
                    start += len(pending)
                    self.offset, pending = start, b""  # its rest will be no event either


def parse_event(line: bytes) -> Event | None:
    """Return the event of one line; None for what is none."""
    if len(line) > MAX_LINE_BYTES:
        return None
    try:
        parse_float = (
            None if line.startswith(PROGRESS_PREFIX) else parse_finite_float
        )  # whose numbers are looked at one by one
        values = json.loads(line, parse_constant=_null_constant, parse_float=parse_float)
        kind, images_seen, elapsed_seconds = (
            values.pop("kind"),
            values.pop("images_seen"),
            values.pop("elapsed_seconds"),
        )
        is_valid = (
            isinstance(kind, str)
            and isinstance(images_seen, int)
            and 0 <= images_seen < MAX_EXACT_INTEGER
            and math.isfinite(elapsed_seconds)
        )
        return Event(kind, int(images_seen), float(elapsed_seconds), values) if is_valid else None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _null_constant(_: str) -> None:
    """Read NaN and infinities, which JSON does not have, as nothing."""


def parse_finite_float(text: str) -> float | None:
    """Return a number as it is written, None for one that overflows."""
    return finite_number(float(text))


def finite_number(value: object) -> float | None:
    """Return a value of an event as a finite number, None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
