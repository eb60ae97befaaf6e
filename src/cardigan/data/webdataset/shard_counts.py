"""How many pictures each shard holds: counted once, kept in memory and in a small file.

A damaged or missing file costs only time. Knows nothing of order.
"""

import contextlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from cardigan.data.webdataset.addresses import redact_query
from cardigan.data.webdataset.byte_stream import open_shard
from cardigan.data.webdataset.tar import ShardCounts, count_shard
from cardigan.errors import CardiganError

SAVE_FRACTION = 8
"""The file is written when what is new is this part of all that is known: as seldom as a logarithm, whatever the number of shards."""


class ShardCountsCache:
    """What is known of shards. May be asked from several threads."""

    def __init__(self, path: Path | None, signatures: Mapping[str, str]) -> None:
        """`signatures` tells each shard's age and size as far as known: what was kept under another stamp is counted again."""
        self._path, self._signatures = path, signatures
        self._lock = threading.RLock()
        self._known = _load_counts(path, signatures)
        self._unsaved = 0

    def __getitem__(self, address: str) -> ShardCounts:
        """Return what a shard holds, reading its headers if that is not known yet."""
        if address not in self._known:
            with open_shard(address) as stream:
                self._add(address, count_shard(stream))
        return self._known[address]

    def known(self) -> list[ShardCounts]:
        with self._lock:
            return list(self._known.values())

    def verify(self, address: str, found: ShardCounts) -> None:
        """Take in what a whole reading of a shard found; raises CardiganError if it is not what was counted before."""
        known = self._known.get(address)
        if known is None:
            self._add(address, found)
        elif known != found:
            self._add(address, found)
            self.save()
            raise CardiganError(
                f"The shard {redact_query(address)} was changed: it holds {found.num_images:,} pictures of {found.num_bytes:,} bytes, and {known.num_images:,} "
                f"of {known.num_bytes:,} when it was counted. Put the old one back, or start anew with this one, which is counted now."
            )

    def save(self) -> None:
        """Write what is new to the file."""
        with self._lock:
            if self._path is not None and self._unsaved:
                with contextlib.suppress(OSError):  # a full disk must not end a training that needs no more of it
                    _save_counts(
                        self._path,
                        {address: [self._signatures[address], found] for address, found in self._known.items()},
                    )
                self._unsaved = 0

    def _add(self, address: str, found: ShardCounts) -> None:
        with self._lock:
            self._known[address] = found
            self._unsaved += 1
            if self._unsaved * SAVE_FRACTION >= len(self._known):
                self.save()


def _load_counts(path: Path | None, signatures: Mapping[str, str]) -> dict[str, ShardCounts]:
    if path is None:
        return {}
    try:
        stored = {
            address: (signature, _counts_from_json(entry))
            for address, (signature, entry) in json.loads(path.read_bytes()).items()
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return {address: found for address, (stamp, found) in stored.items() if signatures.get(address) == stamp}


def _counts_from_json(entry: list) -> ShardCounts:
    num_images, num_bytes, skipped = entry
    return ShardCounts(int(num_images), int(num_bytes), {str(reason): int(count) for reason, count in skipped.items()})


def _save_counts(path: Path, entries: Mapping[str, list]) -> None:
    content = {
        address: [signature, [found.num_images, found.num_bytes, found.skipped]]
        for address, (signature, found) in entries.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        temporary.write_text(json.dumps(content))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
