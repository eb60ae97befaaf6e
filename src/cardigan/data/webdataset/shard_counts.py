"""The number of images in each shard: counted once, cached in memory and in a JSON file.

A damaged or missing file costs only time.
"""

import contextlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cardigan.data.webdataset.addresses import redact_query
from cardigan.data.webdataset.byte_stream import open_shard
from cardigan.data.webdataset.tar import ShardCounts, count_shard
from cardigan.errors import CardiganError

SAVE_FRACTION = 8
"""The file is written when 1/8 of the known counts are new, so the number of writes grows as a logarithm."""


class ShardCountsCache:
    """The counts of shards. Thread-safe."""

    def __init__(self, path: Path | None, signatures: Mapping[str, str]) -> None:
        """`signatures` holds each shard's size and time, if known. A count with another signature is ignored."""
        self._path, self._signatures = path, signatures
        self._lock = threading.RLock()
        self._known = _load_counts(path, signatures)
        self._unsaved = 0

    def __getitem__(self, address: str) -> ShardCounts:
        """Return the counts of a shard. Read its headers if they are not known."""
        if address not in self._known:
            with open_shard(address) as stream:
                self._add(address, count_shard(stream))
        return self._known[address]

    def known(self) -> list[ShardCounts]:
        with self._lock:
            return list(self._known.values())

    def verify(self, address: str, found: ShardCounts) -> None:
        """Record the counts of a complete read. Raises CardiganError if they differ from the earlier ones."""
        known = self._known.get(address)
        if known is None:
            self._add(address, found)
        elif known != found:
            self._add(address, found)
            self.save()
            raise CardiganError(
                f"The shard {redact_query(address)} was changed: it holds {found.num_images:,} images of "
                f"{found.num_bytes:,} bytes, and it held {known.num_images:,} of {known.num_bytes:,} when it was "
                "counted. Restore the old shard, or start a new run with this one."
            )

    def check_unchanged(self, address: str) -> None:
        """Raise CardiganError if a local shard has another size or time than when the source was opened."""
        known = self._signatures.get(address, "")
        if known and _signature(Path(address)) != known:
            raise CardiganError(
                f"The shard {redact_query(address)} was changed or removed after the source was opened: restore it, or "
                "start a new run."
            )

    def save(self) -> None:
        """Write new counts to the file."""
        with self._lock:
            if self._path is not None and self._unsaved:
                with contextlib.suppress(OSError):  # a full disk must not stop the training
                    _save_counts(
                        self._path,
                        {address: (self._signatures[address], found) for address, found in self._known.items()},
                    )
                self._unsaved = 0

    def _add(self, address: str, found: ShardCounts) -> None:
        with self._lock:
            self._known[address] = found
            self._unsaved += 1
            if self._unsaved * SAVE_FRACTION >= len(self._known):
                self.save()


def local_signature(status: os.stat_result) -> str:
    """Return the size and time of a local shard."""
    return f"{status.st_size}/{status.st_mtime_ns}"


def _signature(path: Path) -> str:
    try:
        return local_signature(path.stat())
    except OSError:
        return "gone"


def _load_counts(path: Path | None, signatures: Mapping[str, str]) -> dict[str, ShardCounts]:
    if path is None:
        return {}
    try:
        stored = {
            address: (entry["signature"], _counts_from_json(entry))
            for address, entry in json.loads(path.read_bytes()).items()
        }
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return {}
    return {address: found for address, (signature, found) in stored.items() if signatures.get(address) == signature}


def _counts_from_json(entry: dict[str, Any]) -> ShardCounts:
    skipped = {str(reason): int(count) for reason, count in entry["skipped"].items()}
    return ShardCounts(int(entry["num_images"]), int(entry["num_bytes"]), skipped)


def _save_counts(path: Path, entries: Mapping[str, tuple[str, ShardCounts]]) -> None:
    content = {address: {"signature": signature, **asdict(found)} for address, (signature, found) in entries.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        temporary.write_text(json.dumps(content))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
