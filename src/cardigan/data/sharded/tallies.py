"""How many pictures each shard holds: counted once, kept in memory and in a small file.

A damaged or missing file costs only time. Knows nothing of order.
"""

import contextlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from cardigan.data.sharded.names import told
from cardigan.data.sharded.opened import opened
from cardigan.data.sharded.webdataset import Tally, tally
from cardigan.errors import CardiganError

GROWTH = 8
"""The file is written when what is new is this part of all that is known: as seldom as a logarithm, whatever the number of shards."""


class Tallies:
    """What is known of shards. May be asked from several threads."""

    def __init__(self, path: Path | None, stamps: Mapping[str, str]) -> None:
        """`stamps` tells each shard's age and size as far as known: what was kept under another stamp is counted again."""
        self._path, self._stamps = path, stamps
        self._lock = threading.RLock()
        self._known = _kept(path, stamps)
        self._unsaved = 0

    def __getitem__(self, address: str) -> Tally:
        """Return what a shard holds, reading its headers if that is not known yet."""
        if address not in self._known:
            with opened(address) as stream:
                self._add(address, tally(stream))
        return self._known[address]

    def known(self) -> list[Tally]:
        with self._lock:
            return list(self._known.values())

    def compare(self, address: str, found: Tally) -> None:
        """Take in what a whole reading of a shard found; raises CardiganError if it is not what was counted before."""
        before = self._known.get(address)
        if before is None:
            self._add(address, found)
        elif before != found:
            self._add(address, found)
            self.save()
            raise CardiganError(
                f"The shard {told(address)} was changed: it holds {found.pictures:,} pictures of {found.bytes:,} bytes, and {before.pictures:,} "
                f"of {before.bytes:,} when it was counted. Put the old one back, or start anew with this one, which is counted now."
            )

    def save(self) -> None:
        """Write what is new to the file."""
        with self._lock:
            if self._path is not None and self._unsaved:
                with contextlib.suppress(OSError):  # a full disk must not end a training that needs no more of it
                    _write(self._path, {address: [self._stamps[address], found] for address, found in self._known.items()})
                self._unsaved = 0

    def _add(self, address: str, found: Tally) -> None:
        with self._lock:
            self._known[address] = found
            self._unsaved += 1
            if self._unsaved * GROWTH >= len(self._known):
                self.save()


def _kept(path: Path | None, stamps: Mapping[str, str]) -> dict[str, Tally]:
    if path is None:
        return {}
    try:
        kept = {address: (stamp, _tally_of(entry)) for address, (stamp, entry) in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return {address: found for address, (stamp, found) in kept.items() if stamps.get(address) == stamp}


def _tally_of(entry: list) -> Tally:
    pictures, size, passed_over = entry
    return Tally(int(pictures), int(size), {str(reason): int(count) for reason, count in passed_over.items()})


def _write(path: Path, entries: Mapping[str, list]) -> None:
    content = {address: [stamp, [found.pictures, found.bytes, found.passed_over]] for address, (stamp, found) in entries.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        temporary.write_text(json.dumps(content))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
