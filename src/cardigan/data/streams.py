"""Batches of pictures decoded while training goes on, for sources that are not kept ready: by number, or shard after shard.

What comes next is a function of (seed, images seen) alone; worker processes only decode ahead.
"""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from os import cpu_count

import numpy as np
import torch
from torch.utils.data import IterableDataset

from cardigan.config import DataConfig
from cardigan.data.batches import Order
from cardigan.data.decoding import Frame, decoded
from cardigan.data.feed import Stream
from cardigan.data.loading import Part, decoded_parts, loaded, too_many_bad
from cardigan.data.reader import Reader, Unreadable
from cardigan.data.sharded.shards import Entry, Shards, open_shards
from cardigan.data.source import ImageSource
from cardigan.data.survey import Survey, survey_of_entries
from cardigan.errors import CardiganError
from cardigan.metrics import cache
from cardigan.rng import stream
from cardigan.shapes import Labels, Pixels

ENOUGH_TO_JUDGE = 1_000
"""Pictures after which bad ones are a share and no accident."""
SURVEYED = 200


def reader_stream(reader: Reader, frame: Frame, data: DataConfig, usable: list[int], numbers: Labels, seed: int, batch: int, share: slice) -> Stream:
    """Return the stream of a source that can be read in any order: `usable` entries, shuffled anew each epoch; `numbers` are all entries' classes.

    The place of a picture that cannot be read is taken by the next of them that can.
    """
    order = Order(len(usable) * (2 if data.mirror else 1), seed)

    def stream(images_seen: int) -> Generator[tuple[Pixels, Labels], None, None]:
        sent: deque[torch.Tensor] = deque()
        bad: dict[str, str] = {}

        def wanted() -> Iterator[list[int]]:
            for seen in count(images_seen, batch):
                own = order.at(seen, batch)[share]
                sent.append(own >= len(usable))
                yield (own % len(usable)).tolist()

        for found in decoded_parts(reader, frame, wanted(), data.workers, among=usable):
            if found.bad:
                bad |= {reader.title(entry): reason for entry, reason in found.bad.items()}
                _refuse_too_many(reader.name, len(reader), bad)
            yield _mirrored(torch.from_numpy(found.pixels).permute(0, 3, 1, 2), sent.popleft()), numbers[found.indices]

    return stream


def _mirrored(pixels: Pixels, which: torch.Tensor) -> Pixels:
    return torch.where(which[:, None, None, None], pixels.flip(3), pixels)


def _refuse_too_many(name: str, seen: int, bad: dict[str, str]) -> None:
    refusal = too_many_bad(name, seen, bad)
    if refusal is not None:
        raise refusal


def shards_of(data: DataConfig) -> Shards:
    """Return the shards, with the file in which their counts are kept."""
    kept = cache.folder() / "shards" / f"{cache.content_hash('shards', data.source)}.json"
    return open_shards(data.source, kept)


def shard_stream(shards: Shards, frame: Frame, data: DataConfig, classes: int, seed: int, batch: int, share: slice) -> Stream:
    """Return the stream of shards: each process reads all of them and decodes its share. Mirrored, if at all, by a coin for each picture."""

    def stream(images_seen: int) -> Generator[tuple[Pixels, Labels], None, None]:
        steps = ShardSteps(shards, frame, classes, seed, images_seen, batch, share)
        for seen, found in zip(count(images_seen, batch), loaded(steps, None, shards.name, 0 if data.workers == 0 else 1), strict=False):
            pixels = torch.from_numpy(found.pixels).permute(0, 3, 1, 2)
            yield _mirrored(pixels, _coins(seed, seen, batch)[share]) if data.mirror else pixels, torch.tensor(found.labels)

    return stream


def _coins(seed: int, images_seen: int, batch: int) -> torch.Tensor:
    return torch.rand(batch, generator=stream(seed, "mirror", images_seen)) < 0.5


class ShardSteps(IterableDataset[Part]):
    """The pictures of one step after another, read in one thread and decoded in several: each shard's bytes are fetched once."""

    def __init__(self, shards: Shards, frame: Frame, classes: int, seed: int, images_seen: int, batch: int, share: slice) -> None:
        self.shards, self.frame, self.classes = shards, frame, classes
        self.seed, self.images_seen, self.batch, self.share = seed, images_seen, batch, share

    def __iter__(self) -> Iterator[Part]:
        entries = self.shards.entries(self.seed, self.images_seen)
        bad: dict[str, str] = {}
        seen = 0
        with ThreadPoolExecutor(cpu_count() or 1) as threads:
            try:
                while True:
                    own = list(islice(entries, self.batch))[self.share]
                    seen += len(own)
                    part = self._decoded(own, threads, bad)
                    if bad and seen >= ENOUGH_TO_JUDGE:
                        _refuse_too_many(self.shards.name, seen, bad)
                    yield part
            except CardiganError as error:
                yield Part(np.empty(0, np.uint8), [], refusal=str(error))
            finally:
                entries.close()  # pyright: ignore[reportAttributeAccessIssue] - it is a generator

    def _decoded(self, entries: list[Entry], threads: ThreadPoolExecutor, bad: dict[str, str]) -> Part:
        """Return the entries decoded; the place of one that cannot be read is taken by the one before it in the step, or the first that can be."""
        found = list(threads.map(self._pixels, entries))
        usable = [number for number, pixels in enumerate(found) if isinstance(pixels, np.ndarray)]
        if not usable:
            raise CardiganError(f"None of {len(entries)} consecutive pictures of {self.shards.name} can be read, such as {entries[0].title}.")
        bad |= {entry.title: pixels for entry, pixels in zip(entries, found, strict=True) if isinstance(pixels, str)}
        taken = [max((place for place in usable if place <= number), default=usable[0]) for number in range(len(found))]
        labels = [class_number(entries[number], self.classes) for number in taken]
        return Part(np.stack([found[number] for number in taken]), [], labels=labels)

    def _pixels(self, entry: Entry) -> np.ndarray | str:
        try:
            return decoded(entry.stored, self.frame)
        except Unreadable as error:
            return str(error)


def classes_among(first: list[Entry]) -> int:
    """Return how many classes shards have, judged by their first pictures: their numbers begin at 0."""
    labels = [entry.label for entry in first]
    return 1 + max((int(label) for label in labels if label is not None and str(label).isdecimal()), default=-1)


def class_number(entry: Entry, classes: int) -> int:
    """Return an entry's class, -1 for none and for one that is not 0..classes - 1; 0 where there are no classes."""
    if not classes:
        return 0
    known = str(entry.label).isdecimal() and int(str(entry.label)) < classes
    return int(str(entry.label)) if known else -1


def shard_sample(shards: Shards, first: list[Entry], frame: Frame, classes: int) -> ImageSource:
    """Return the first pictures of the shards, decoded, for looking at."""
    pixels, labels = [], []
    for entry in first:
        try:
            pixels.append(decoded(entry.stored, frame))
            labels.append(class_number(entry, classes))
        except Unreadable:
            continue
    if not pixels:
        raise CardiganError(f"None of the first pictures of {shards.name} can be read: look at one of its shards with a tar program.")
    return ImageSource(shards.name, torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2), torch.tensor(labels), classes)


def survey_of_shards(shards: Shards, max_pixels: int) -> Survey:
    """Return what the shards' first pictures are like, and about how many there are."""
    found = [entry.stored for entry in first_entries(shards, SURVEYED)]
    first = shards.addresses[0]
    total = len(shards.addresses)
    return survey_of_entries(found, total * shards.tallies[first].pictures, total, shards.name, max_pixels)


def first_entries(shards: Shards, most: int) -> list[Entry]:
    """Return up to so many pictures from the beginning of the first epoch."""
    entries = shards.entries(0, 0)
    try:
        seen: set[str] = set()
        found = []
        for entry in islice(entries, most):
            if entry.title in seen:
                break  # a second epoch has begun
            seen.add(entry.title)
            found.append(entry)
        return found
    finally:
        entries.close()  # pyright: ignore[reportAttributeAccessIssue] - it is a generator
