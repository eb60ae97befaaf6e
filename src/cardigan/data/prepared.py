"""Every picture of a source decoded once, in the frame that is trained on, in one file that is mapped into memory.

Written under the cache folder as a whole or not at all, named by a hash of the source's fingerprint and the frame; deleting it costs only time.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from cardigan.data.decoding import Frame
from cardigan.data.loading import decoded_parts, in_turn, too_many_bad
from cardigan.data.reader import Reader
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
    key = cache.content_hash("pictures", str(FORMAT), reader.fingerprint, str(len(reader)), json.dumps(asdict(frame)))
    path = cache.folder() / "pictures" / key
    if not _whole(path, frame):
        _prepare(path, reader, frame, workers, told)
    facts = json.loads((path / "facts.json").read_bytes())
    stored = np.load(path / "pixels.npy", mmap_mode="c")
    skipped = set(facts["skipped"])
    entries = [number for number in shuffled(len(reader)) if number not in skipped]
    return Prepared(torch.from_numpy(stored).permute(0, 3, 1, 2), entries, facts["bad"], facts["notes"], key)


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


def _prepare(path: Path, reader: Reader, frame: Frame, workers: int | None, told: Told | None) -> None:
    bad: dict[str, str] = {}
    skipped: list[int] = []
    notes: Counter[str] = Counter()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacement(path) as temporary:
        temporary.mkdir()
        file = temporary / "pixels.npy"
        shape = (len(reader), frame.height, frame.width, frame.channels)
        whole = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
        order = shuffled(len(reader))
        place = np.argsort(order)
        done = 0
        for number, part in enumerate(decoded_parts(reader, frame, in_turn(len(reader)), workers)):
            whole[place[part.indices]] = part.pixels
            done += len(part.indices) + len(part.bad)
            bad |= {reader.title(index): reason for index, reason in part.bad.items()}
            skipped += list(part.bad)
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
            _shorten(file, np.sort(place[[number for number in range(len(reader)) if number not in set(skipped)]]))
        facts = {"count": len(reader) - len(skipped), "skipped": skipped, "bad": bad, "notes": dict(notes), "source": reader.name}
        (temporary / "facts.json").write_text(json.dumps(facts, indent=1))


def _shorten(file: Path, places: np.ndarray) -> None:
    """Rewrite the file with what lies at these places alone."""
    whole = np.load(file, mmap_mode="r")
    shorter = file.with_name("shorter.npy")
    copy = np.lib.format.open_memmap(shorter, mode="w+", dtype=np.uint8, shape=(len(places), *whole.shape[1:]))
    for start in range(0, len(places), 4096):
        copy[start : start + 4096] = whole[places[start : start + 4096]]
    copy.flush()
    shorter.replace(file)
