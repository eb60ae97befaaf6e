"""Incremental reading of a journal: new lines, their events, finite numbers."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cardigan.run.journal import Event

CHUNK_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 20
"""A longer line is malformed."""
MAX_EXACT_INTEGER = 2**53
PROGRESS_PREFIX = b'{"kind": "progress"'
"""Start of a progress line as the trainer writes it. Lines with other whitespace work too, but are slower to read."""


@dataclass
class TailReader:
    """Reads the new complete lines of a file that grows. An incomplete last line is read once it is complete."""

    path: Path
    offset: int = 0
    inode: int | None = None
    size: int = 0
    """Size of the file at the last check."""

    def reset_if_replaced(self) -> bool:
        """Start again at offset 0 if the file was replaced or truncated. Return whether it was. Raises OSError."""
        file_stat = self.path.stat()
        is_replaced = self.inode is not None and (file_stat.st_ino != self.inode or file_stat.st_size < self.offset)
        self.inode, self.size = file_stat.st_ino, file_stat.st_size
        if is_replaced:
            self.offset = 0
        return is_replaced

    def read_lines(self, up_to: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Yield (offset after the line, line without newline), up to an offset. Raises OSError."""
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
                    self.offset, pending = start, b""  # the rest of the line is malformed too


def parse_event(line: bytes) -> Event | None:
    """Return the event of one line, None if the line is malformed."""
    if len(line) > MAX_LINE_BYTES:
        return None
    try:
        # the numbers of progress lines are checked one by one later
        parse_float = None if line.startswith(PROGRESS_PREFIX) else parse_finite_float
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
    """Read NaN and infinities, which JSON does not have, as None."""


def parse_finite_float(text: str) -> float | None:
    """Return the number, None if it overflows."""
    return finite_number(float(text))


def finite_number(value: object) -> float | None:
    """Return the value as a float if it is a finite number, None otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
