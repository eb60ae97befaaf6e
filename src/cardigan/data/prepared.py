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

from cardigan.data.decoding import Frame, decoded
from cardigan.data.loading import decoded_parts, in_turn, too_many_bad
from cardigan.data.reader import Reader, Unreadable
from cardigan.errors import CardiganError
from cardigan.metrics import cache
from cardigan.rng import stream
from cardigan.run import atomic
from cardigan.shapes import Pixels

FORMAT = 1
"""Raised when the same source would give other pixels."""
LARGEST_SHARE = 0.5
"""Of the free disk."""
Told = Callable[[int, int], None]
"""How many pictures are done, of how many."""


@dataclass(frozen=True)
class Prepared:
    """A source's readable pictures, in a random order that is always the same, so that its last ones are as good as any."""

    pixels: Pixels
    entries: list[int]
    """Each picture's number in the source."""
    bad: dict[str, str]
    """What could not be read, by name, and why."""
    notes: dict[str, int]
    """How many pictures were converted, by what it cost them."""
    key: str
    """Changes whenever a pixel could."""


def prepared_bytes(count: int, frame: Frame) -> int:
    return count * frame.height * frame.width * frame.channels


def room_for(count: int, frame: Frame) -> bool:
    """Return whether that many pictures may be kept on the disk."""
    return prepared_bytes(count, frame) <= LARGEST_SHARE * shutil.disk_usage(cache.folder()).free


def prepared(reader: Reader, frame: Frame, workers: int | None = None, told: Told | None = None) -> Prepared:
    """Return all readable pictures of a source, decoded now or found in the cache.

    Raises CardiganError if more than one picture in a hundred cannot be used, or the disk is full.
    """
    key = _key(reader, frame)
    path = _place(key)
    if not _whole(path, frame) or _mended(path, reader, frame):
        _make(path, reader, frame, workers, told)
    facts = json.loads((path / "facts.json").read_bytes())
    stored = np.load(path / "pixels.npy", mmap_mode="c")
    skipped = set(facts["skipped"])
    entries = [number for number in shuffled(len(reader)) if number not in skipped]
    return Prepared(torch.from_numpy(stored).permute(0, 3, 1, 2), entries, facts["bad"], facts["notes"], key)


def decoded_now(reader: Reader, frame: Frame, workers: int | None = None, told: Told | None = None, entries: Sequence[int] | None = None) -> Prepared:
    """Return these entries decoded into memory, and nothing kept; all of them, in the order they would be kept in, if none are named."""
    wanted = shuffled(len(reader)) if entries is None else list(entries)
    parts = list(decoded_parts(reader, frame, ([wanted[place] for place in places] for places in in_turn(len(wanted))), workers))
    bad = {reader.title(index): reason for part in parts for index, reason in part.bad.items()}
    refusal = None if entries is not None else too_many_bad(reader.name, len(reader), bad)
    if refusal is not None:
        raise refusal
    if told is not None:
        told(len(wanted), len(wanted))
    pixels = torch.cat([torch.from_numpy(part.pixels) for part in parts]).permute(0, 3, 1, 2)
    return Prepared(pixels, [index for part in parts for index in part.indices], bad, dict(sum((part.notes for part in parts), Counter())), "")


def is_kept(reader: Reader, frame: Frame) -> bool:
    """Return whether a source's pictures are decoded already."""
    return _whole(_place(_key(reader, frame)), frame)


def _key(reader: Reader, frame: Frame) -> str:
    return cache.content_hash("pictures", str(FORMAT), reader.fingerprint, str(len(reader)), json.dumps(asdict(frame)))


def _place(key: str) -> Path:
    return cache.folder() / "pictures" / key


def shuffled(count: int) -> list[int]:
    """Return the numbers of a source's entries in the order they are kept in."""
    return torch.randperm(count, generator=stream(0, "prepared", 0)).tolist()


def _whole(path: Path, frame: Frame) -> bool:
    """Return whether the folder holds what its facts say; one that does not is removed."""
    try:
        facts = json.loads((path / "facts.json").read_bytes())
        shape = np.load(path / "pixels.npy", mmap_mode="r").shape
        if shape == (facts["count"], frame.height, frame.width, frame.channels):
            return True
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError):
        atomic.remove(path)
    return False


def _mended(path: Path, reader: Reader, frame: Frame) -> bool:
    """Return whether a picture that was skipped can be read now: a passing fault of the disk, or a permission, shows in no fingerprint."""
    for entry in json.loads((path / "facts.json").read_bytes())["skipped"]:
        try:
            decoded(reader.read(entry), frame)
        except Unreadable:
            continue
        return True
    return False


def _make(path: Path, reader: Reader, frame: Frame, workers: int | None, told: Told | None) -> None:
    """Decode the pictures into the folder; where another process was quicker, what it made is as good."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        if path.exists() and _mended(path, reader, frame):
            atomic.remove(path)
        with atomic.replacement(path) as temporary:
            temporary.mkdir()
            _prepare(temporary, reader, frame, workers, told)
    except OSError as error:
        raise atomic.unwritable(path, error) from error
    except CardiganError:
        if not _whole(path, frame):
            raise


def _remove_abandoned(folder: Path) -> None:
    """Remove what processes that are gone have left behind."""
    for leftover in folder.glob(f"{atomic.MARK}*"):
        number = leftover.name.removeprefix(atomic.MARK).partition("-")[0]
        if number.isdecimal() and Path("/proc").exists() and not Path(f"/proc/{number}").exists():
            atomic.remove(leftover)


def _prepare(folder: Path, reader: Reader, frame: Frame, workers: int | None, told: Told | None) -> None:
    bad: dict[str, str] = {}
    skipped: set[int] = set()
    notes: Counter[str] = Counter()
    file = folder / "pixels.npy"
    whole = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=(len(reader), frame.height, frame.width, frame.channels))
    _reserve(file)
    place = np.argsort(shuffled(len(reader)))
    done = 0
    for number, part in enumerate(decoded_parts(reader, frame, in_turn(len(reader)), workers)):
        whole[place[part.indices]] = part.pixels
        done += len(part.indices) + len(part.bad)
        bad |= {reader.title(index): reason for index, reason in part.bad.items()}
        skipped |= set(part.bad)
        notes += part.notes
        if told is not None and number % 8 == 0:
            told(done, len(reader))
    refusal = too_many_bad(reader.name, len(reader), bad)
    if refusal is not None:
        raise refusal
    if told is not None:
        told(len(reader), len(reader))
    whole.flush()
    del whole
    if skipped:
        _shorten(file, np.sort(place[[number for number in range(len(reader)) if number not in skipped]]))
    facts = {"count": len(reader) - len(skipped), "skipped": sorted(skipped), "bad": bad, "notes": dict(notes), "source": reader.name}
    (folder / "facts.json").write_text(json.dumps(facts, indent=1))


def _reserve(file: Path) -> None:
    """Take the file's room on the disk now: writing to a mapped file on a full disk would kill the process without a word."""
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)


def _shorten(file: Path, places: np.ndarray) -> None:
    """Rewrite the file with what lies at these places alone."""
    whole = np.load(file, mmap_mode="r")
    shorter = file.with_name("shorter.npy")
    copy = np.lib.format.open_memmap(shorter, mode="w+", dtype=np.uint8, shape=(len(places), *whole.shape[1:]))
    for start in range(0, len(places), 4096):
        copy[start : start + 4096] = whole[places[start : start + 4096]]
    copy.flush()
    shorter.replace(file)
