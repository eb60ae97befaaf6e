"""Every picture of a source decoded once, in the frame that is trained on, in one file that is mapped into memory.

Written under the cache folder as a whole or not at all, named by a hash of the source's fingerprint and the frame; deleting it costs only time.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from cardigan.data.decoding import DecodeSpec, decode_image
from cardigan.data.reader import Reader, UnreadableImage
from cardigan.data.workers import consecutive_chunks, decode_chunks, unreadable_error
from cardigan.errors import CardiganError
from cardigan.files import atomic, disk_cache
from cardigan.rng import stream
from cardigan.shapes import Pixels

CACHE_FORMAT = 2
"""Raised when the same source would give other pixels."""
MAX_DISK_FRACTION = 0.5
"""Of the free disk."""
ProgressFn = Callable[[int, int], None]
"""How many pictures are done, of how many."""


@dataclass(frozen=True)
class DecodedCache:
    """A source's readable pictures, in a random order that is always the same, so that its last ones are as good as any."""

    pixels: Pixels
    entries: list[int]
    """Each picture's number in the source."""
    unreadable: dict[str, str]
    """What could not be read, by name, and why."""
    conversions: dict[str, int]
    """How many pictures were converted, by what it cost them."""
    key: str
    """Changes whenever a pixel could."""


def decoded_bytes(count: int, spec: DecodeSpec) -> int:
    return count * spec.height * spec.width * spec.channels


def fits_on_disk(count: int, spec: DecodeSpec) -> bool:
    """Return whether that many pictures may be kept on the disk."""
    return decoded_bytes(count, spec) <= MAX_DISK_FRACTION * shutil.disk_usage(disk_cache.cache_dir()).free


def load_or_build_cache(
    reader: Reader, spec: DecodeSpec, workers: int | None = None, on_progress: ProgressFn | None = None
) -> DecodedCache:
    """Return all readable pictures of a source, decoded now or found in the cache.

    Raises CardiganError if more than one picture in a hundred cannot be used, or the disk is full.
    """
    key = _cache_key(reader, spec)
    path = _cache_path(key)
    if not _is_complete(path, spec) or _can_read_skipped(path, reader, spec):
        _build_cache(path, reader, spec, workers, on_progress)
    metadata = json.loads((path / "metadata.json").read_bytes())
    pixels = np.load(path / "pixels.npy", mmap_mode="c")
    unreadable_indices = set(metadata["unreadable_indices"])
    entries = [entry for entry in cache_order(len(reader)) if entry not in unreadable_indices]
    return DecodedCache(
        torch.from_numpy(pixels).permute(0, 3, 1, 2), entries, metadata["unreadable"], metadata["conversions"], key
    )


def decode_in_memory(
    reader: Reader,
    spec: DecodeSpec,
    workers: int | None = None,
    on_progress: ProgressFn | None = None,
    entries: Sequence[int] | None = None,
) -> DecodedCache:
    """Return these entries decoded into memory, and nothing kept; all of them, in the order they would be kept in, if none are named."""
    entry_order = cache_order(len(reader)) if entries is None else list(entries)
    chunks = list(
        decode_chunks(
            reader,
            spec,
            ([entry_order[position] for position in positions] for positions in consecutive_chunks(len(entry_order))),
            workers,
        )
    )
    unreadable = {reader.entry_name(index): reason for chunk in chunks for index, reason in chunk.unreadable.items()}
    error = None if entries is not None else unreadable_error(reader.name, len(reader), unreadable)
    if error is not None:
        raise error
    if on_progress is not None:
        on_progress(len(entry_order), len(entry_order))
    pixels = torch.cat([torch.from_numpy(part.pixels) for part in chunks]).permute(0, 3, 1, 2)
    return DecodedCache(
        pixels,
        [index for part in chunks for index in part.indices],
        unreadable,
        dict(sum((part.conversions for part in chunks), Counter())),
        "",
    )


def is_cached(reader: Reader, spec: DecodeSpec) -> bool:
    """Return whether a source's pictures are decoded already."""
    return _is_complete(_cache_path(_cache_key(reader, spec)), spec)


def _cache_key(reader: Reader, spec: DecodeSpec) -> str:
    return disk_cache.cache_key(
        "decoded", str(CACHE_FORMAT), reader.fingerprint, str(len(reader)), json.dumps(asdict(spec))
    )


def _cache_path(key: str) -> Path:
    return disk_cache.cache_dir() / "decoded" / key


def cache_order(count: int) -> list[int]:
    """Return the numbers of a source's entries in the order they are kept in."""
    return torch.randperm(count, generator=stream(0, "prepared", 0)).tolist()


def _is_complete(path: Path, spec: DecodeSpec) -> bool:
    """Return whether the folder holds what its facts say; one that does not is removed."""
    try:
        metadata = json.loads((path / "metadata.json").read_bytes())
        shape = np.load(path / "pixels.npy", mmap_mode="r").shape
        if shape == (metadata["num_images"], spec.height, spec.width, spec.channels):
            return True
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError):
        atomic.remove(path)
    return False


def _can_read_skipped(path: Path, reader: Reader, spec: DecodeSpec) -> bool:
    """Return whether a picture that was skipped can be read now: a passing fault of the disk, or a permission, shows in no fingerprint."""
    for entry in json.loads((path / "metadata.json").read_bytes())["unreadable_indices"]:
        try:
            decode_image(reader.read(entry), spec)
        except UnreadableImage:
            continue
        return True
    return False


def _build_cache(
    path: Path, reader: Reader, spec: DecodeSpec, workers: int | None, on_progress: ProgressFn | None
) -> None:
    """Decode the pictures into the folder; where another process was quicker, what it made is as good."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale_temporaries(path.parent)
        if path.exists() and _can_read_skipped(path, reader, spec):
            atomic.remove(path)
        with atomic.atomic_path(path) as temporary:
            temporary.mkdir()
            _write_cache(temporary, reader, spec, workers, on_progress)
    except OSError as error:
        raise atomic.write_error(path, error) from error
    except CardiganError:
        if not _is_complete(path, spec):
            raise


def _remove_stale_temporaries(folder: Path) -> None:
    """Remove what processes that are gone have left behind."""
    for leftover in folder.glob(f"{atomic.TEMPORARY_PREFIX}*"):
        process_id = leftover.name.removeprefix(atomic.TEMPORARY_PREFIX).partition("-")[0]
        if process_id.isdecimal() and Path("/proc").exists() and not Path(f"/proc/{process_id}").exists():
            atomic.remove(leftover)


def _write_cache(
    folder: Path, reader: Reader, spec: DecodeSpec, workers: int | None, on_progress: ProgressFn | None
) -> None:
    unreadable: dict[str, str] = {}
    unreadable_indices: set[int] = set()
    conversions: Counter[str] = Counter()
    file = folder / "pixels.npy"
    pixels = np.lib.format.open_memmap(
        file, mode="w+", dtype=np.uint8, shape=(len(reader), spec.height, spec.width, spec.channels)
    )
    _preallocate(file)
    row_of = np.argsort(cache_order(len(reader)))
    done = 0
    for number, chunk in enumerate(decode_chunks(reader, spec, consecutive_chunks(len(reader)), workers)):
        pixels[row_of[chunk.indices]] = chunk.pixels
        done += len(chunk.indices) + len(chunk.unreadable)
        unreadable |= {reader.entry_name(index): reason for index, reason in chunk.unreadable.items()}
        unreadable_indices |= set(chunk.unreadable)
        conversions += chunk.conversions
        if on_progress is not None and number % 8 == 0:
            on_progress(done, len(reader))
    error = unreadable_error(reader.name, len(reader), unreadable)
    if error is not None:
        raise error
    if on_progress is not None:
        on_progress(len(reader), len(reader))
    pixels.flush()
    del pixels
    if unreadable_indices:
        _compact(file, np.sort(row_of[[number for number in range(len(reader)) if number not in unreadable_indices]]))
    metadata = {
        "num_images": len(reader) - len(unreadable_indices),
        "unreadable_indices": sorted(unreadable_indices),
        "unreadable": unreadable,
        "conversions": dict(conversions),
        "source": reader.name,
    }
    (folder / "metadata.json").write_text(json.dumps(metadata, indent=1))


def _preallocate(file: Path) -> None:
    """Take the file's room on the disk now: writing to a mapped file on a full disk would kill the process without a word."""
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, file.stat().st_size)


def _compact(file: Path, rows: np.ndarray) -> None:
    """Rewrite the file with what lies at these places alone."""
    pixels = np.load(file, mmap_mode="r")
    compact_file = file.with_name("compacted.npy")
    compact_pixels = np.lib.format.open_memmap(
        compact_file, mode="w+", dtype=np.uint8, shape=(len(rows), *pixels.shape[1:])
    )
    for start in range(0, len(rows), 4096):
        compact_pixels[start : start + 4096] = pixels[rows[start : start + 4096]]
    compact_pixels.flush()
    compact_file.replace(file)
