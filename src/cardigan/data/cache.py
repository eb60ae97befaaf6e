"""The decoded cache: every image of a source, decoded once in the training shape, in one memory-mapped file.

The file is in the cache folder and is written atomically. Its name is a hash of the source's fingerprint and the
`DecodeSpec`. Deleting it costs only time.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from cardigan.data.decoding import DecodeSpec, decode_image
from cardigan.data.reader import ProgressFn, Reader, UnreadableImage
from cardigan.data.workers import consecutive_chunks, decode_chunks, unreadable_error
from cardigan.errors import CardiganError
from cardigan.files import atomic, disk_cache
from cardigan.rng import stream
from cardigan.shapes import Pixels

CACHE_FORMAT = 3
"""Increased when the same source would give different pixels."""
MAX_DISK_FRACTION = 0.5
"""Maximum fraction of the free disk space."""


@dataclass(frozen=True)
class DecodedCache:
    """A source's readable images in a fixed random order, so that the last ones are a random sample."""

    pixels: Pixels
    entries: list[int]
    """The index of each image in the source."""
    unreadable: dict[str, str]
    """The reason for each unreadable image, by name."""
    conversions: dict[str, int]
    """Number of converted images, by conversion note."""
    key: str
    """A hash that changes whenever the pixels may change."""


def decoded_bytes(count: int, spec: DecodeSpec) -> int:
    return count * spec.height * spec.width * spec.channels


def fits_on_disk(count: int, spec: DecodeSpec) -> bool:
    """Return whether `count` decoded images may be stored on disk."""
    return decoded_bytes(count, spec) <= MAX_DISK_FRACTION * shutil.disk_usage(disk_cache.cache_dir()).free


def load_or_build_cache(
    reader: Reader, spec: DecodeSpec, workers: int | None = None, on_progress: ProgressFn | None = None
) -> DecodedCache:
    """Return all readable images of a source from the cache. Decode them first if they are not cached.

    Raises CardiganError if more than 1 % of the images are unreadable or the disk is full.
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
    """Return these entries decoded into memory, without a file. Default: all entries in `cache_order`."""
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
    """Return whether a source's decoded images are in the cache."""
    return _is_complete(_cache_path(_cache_key(reader, spec)), spec)


def _cache_key(reader: Reader, spec: DecodeSpec) -> str:
    return disk_cache.cache_key(
        "decoded", str(CACHE_FORMAT), reader.fingerprint, str(len(reader)), json.dumps(asdict(spec))
    )


def _cache_path(key: str) -> Path:
    return disk_cache.cache_dir() / "decoded" / key


def cache_order(count: int) -> list[int]:
    """Return the indices of a source's entries in the order of the cache file."""
    return torch.randperm(count, generator=stream(0, "prepared", 0)).tolist()


def _is_complete(path: Path, spec: DecodeSpec) -> bool:
    """Return whether the folder matches its metadata. A folder that does not is removed."""
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
    """Return whether an image that was skipped is readable now.

    The fingerprint does not show a temporary disk fault or a changed permission.
    """
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
    """Decode the images into the folder. If another process finishes first, its result is used."""
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
    """Remove temporary files of processes that no longer run."""
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
    """Allocate the file's disk space now: a write to a mapped file on a full disk kills the process silently."""
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, file.stat().st_size)


def _compact(file: Path, rows: np.ndarray) -> None:
    """Rewrite the file with only these rows."""
    pixels = np.load(file, mmap_mode="r")
    compact_file = file.with_name("compacted.npy")
    compact_pixels = np.lib.format.open_memmap(
        compact_file, mode="w+", dtype=np.uint8, shape=(len(rows), *pixels.shape[1:])
    )
    for start in range(0, len(rows), 4096):
        compact_pixels[start : start + 4096] = pixels[rows[start : start + 4096]]
    compact_pixels.flush()
    compact_file.replace(file)
