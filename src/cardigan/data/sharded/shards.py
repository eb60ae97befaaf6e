"""Pictures streamed from tar shards, for sets larger than the disk: endless, shuffled anew each epoch, a pure function of (seed, images_seen).

Each epoch takes the shards in a new order, a group of them at a time, and shuffles each group's pictures. Does not decode them.
"""

import math
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch

from cardigan.data.formats.entries import no_pictures
from cardigan.data.reader import fingerprint
from cardigan.data.sharded.names import addresses_of, is_remote, shard_name, some
from cardigan.data.sharded.names import difference as difference
from cardigan.data.sharded.names import is_shards as is_shards
from cardigan.data.sharded.opened import UnwantedError, opened
from cardigan.data.sharded.tallies import Tallies
from cardigan.data.sharded.webdataset import Picture, Tally, pictures
from cardigan.errors import CardiganError
from cardigan.rng import stream

GROUP_PICTURES = 8192
"""A group takes shards until it has this many pictures,"""
GROUP_BYTES = 1 << 29
"""or this many bytes of pictures. Memory holds one group: what is left of the one in use, and as large a part of the next."""
AHEAD_BYTES = 1 << 22
"""So much more of the next group is read."""


class Entry(NamedTuple):
    """One picture, not decoded."""

    title: str
    """What it is called in a message: its shard and its path in it."""
    stored: bytes
    label: str | int | None


class Group(NamedTuple):
    """Shards that stand together in an epoch's order, whose pictures are shuffled together."""

    epoch: int
    number: int
    """How many groups the epoch has had before; less than the number of shards."""
    start: int
    """The place of its first shard in the epoch's order. It ends as soon as it is full, or the epoch is over."""


Content: TypeAlias = tuple[list[Entry], Group]
"""A group's pictures in the order they lie, and the group that follows."""
Wanted: TypeAlias = Callable[[int], bool]
"""Waits until there is room for so many bytes; whether they are still wanted then."""


@dataclass(frozen=True)
class Shards:
    """A fixed list of tar files with pictures."""

    name: str
    """What the user gave."""
    addresses: tuple[str, ...]
    fingerprint: str
    """Changes if the list does, or the size of a local shard."""
    tallies: Tallies = field(repr=False, compare=False)

    def count(self) -> int:
        """Return the number of pictures; reads the headers of every shard not counted yet, which for a remote one is all of it."""
        total = sum(self.tallies[address].pictures for address in self.addresses)
        self.tallies.save()
        return total

    @property
    def passed_over(self) -> dict[str, int]:
        """How many entries were not taken for pictures, by reason, in the shards counted so far."""
        return dict(sum((Counter(found.passed_over) for found in self.tallies.known()), Counter()))

    def apart(self, count: int) -> tuple["Shards", list[Entry]]:
        """Return the shards without the last ones, as few as hold `count` pictures, and the first so many of those.

        Raises CardiganError if nothing would be left.
        """
        kept, found = list(self.addresses), list[Entry]()
        while len(found) < count:
            address = kept.pop()
            if not kept:
                raise CardiganError(
                    f"data.held_out is {count:,}, but whole shards are held out, and of the {len(self.addresses)} of {self.name} "
                    "none would be left to train on: give a smaller number, or more shards."
                )
            with opened(address) as shard:
                first = islice(pictures(shard, Counter()), count - len(found))
                found += [_entry(address, picture) for picture in first]
        return replace(self, addresses=tuple(kept)), found

    def entries(self, seed: int, images_seen: int) -> Generator[Entry, None, None]:
        """Yield the pictures that follow the first `images_seen`, without end; none comes twice in an epoch, none is left out.

        A thread reads the next group meanwhile, at the pace at which this one is used up; closing the iterator ends it.
        """
        group, skipped = self._place(seed, images_seen)
        reading = Reading(partial(self._read, seed, group))
        largest = 0
        try:
            while True:
                found, following = reading.result()
                order = self._order(seed, group, len(found))[skipped:]
                group, skipped = following, 0
                reading = Reading(partial(self._read, seed, group))
                shuffled = [found[position] for position in reversed(order)]
                del found
                size = sum(len(entry.stored) for entry in shuffled)
                largest = max(largest, size)  # the next may be larger than this, which may be the small rest of an epoch
                while shuffled:
                    entry = shuffled.pop()
                    reading.allow(len(entry.stored) * largest / max(size, 1))
                    yield entry
        finally:
            reading.stop()
            self.tallies.save()

    def _place(self, seed: int, images_seen: int) -> tuple[Group, int]:
        """Return the group that picture `images_seen` is of, and how many of the group's pictures come before it.

        Counts only the groups before and that one, as long as the first epoch is not over.
        """
        if images_seen == 0:
            return Group(0, 0, 0), 0
        epoch, before = 0, images_seen
        while True:
            for group, held in self._groups(seed, epoch):
                if before < held:
                    return group, before
                before -= held
            total = self.count()  # all are counted now
            if not total:
                raise no_pictures(self.name, self.passed_over)
            epoch, before = epoch + 1 + before // total, before % total

    def _groups(self, seed: int, epoch: int) -> Iterator[tuple[Group, int]]:
        """Yield an epoch's groups with their numbers of pictures, as `_read` forms them."""
        shards = self._shards(seed, epoch)
        number = place = 0
        while place < len(shards):
            group, held, size = Group(epoch, number, place), 0, 0
            while place < len(shards) and not _full(held, size):
                found = self.tallies[shards[place]]
                held, size, place = held + found.pictures, size + found.bytes, place + 1
            yield group, held
            number += 1

    def _read(self, seed: int, group: Group, wanted: Wanted) -> Content:
        """Return a group's pictures, and the group that follows it; what is not wanted any more may be left out."""
        shards = self._shards(seed, group.epoch)
        entries: list[Entry] = []
        place, size = group.start, 0
        while place < len(shards) and not _full(len(entries), size) and wanted(0):
            size += self._add(shards[place], entries, wanted)
            place += 1
        if place < len(shards):
            return entries, Group(group.epoch, group.number + 1, place)
        if group.start == 0 and not entries and wanted(0):
            raise no_pictures(self.name, self.passed_over)
        return entries, Group(group.epoch + 1, 0, 0)

    def _add(self, address: str, entries: list[Entry], wanted: Wanted) -> int:
        """Add a shard's pictures to `entries`; returns how many bytes they have."""
        count, size = 0, 0
        passed_over: Counter[str] = Counter()
        try:
            with opened(address, lambda: wanted(0)) as shard:
                for picture in pictures(shard, passed_over):
                    if not wanted(picture.size):
                        return size
                    entries.append(_entry(address, picture))
                    count, size = count + 1, size + picture.size
        except UnwantedError:
            return size
        self.tallies.compare(address, Tally(count, size, dict(passed_over)))
        return size

    def _shards(self, seed: int, epoch: int) -> list[str]:
        order = torch.randperm(len(self.addresses), generator=stream(seed, "shards", epoch))
        return [self.addresses[position] for position in order.tolist()]

    def _order(self, seed: int, group: Group, count: int) -> list[int]:
        number = group.epoch * len(self.addresses) + group.number
        return torch.randperm(count, generator=stream(seed, "in shards", number)).tolist()


def _entry(address: str, picture: Picture) -> Entry:
    return Entry(f"{shard_name(address)}/{picture.name}", picture.stored, picture.label)


def _full(count: int, size: int) -> bool:
    """Return whether a group takes no further shard; decided by those it has, so that nothing must be known of the rest."""
    return count >= GROUP_PICTURES or size >= GROUP_BYTES


class Reading:
    """Pictures that are read in a thread, no more of them than was allowed; what went wrong there is raised where the result is asked for."""

    def __init__(self, read: Callable[[Wanted], Content]) -> None:
        self._changed = threading.Condition()
        self._allowed: float = AHEAD_BYTES
        self._stopped = False
        self._result: Future[Content] = Future()
        threading.Thread(target=self._run, args=(read,), daemon=True, name="shards").start()

    def allow(self, size: float) -> None:
        """Let so many more bytes be read."""
        with self._changed:
            self._allowed += size
            self._changed.notify()

    def result(self) -> Content:
        """Return all that was to be read, when it is."""
        self.allow(math.inf)
        return self._result.result()

    def stop(self) -> None:
        """Let the thread end at the next piece of a shard; does not wait for it, since a server may keep it waiting."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _wanted(self, size: int) -> bool:
        """Return whether so many bytes are still wanted, once there is room for them."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._allowed >= size)
            self._allowed -= size
            return not self._stopped

    def _run(self, read: Callable[[Wanted], Content]) -> None:
        try:
            self._result.set_result(read(self._wanted))
        except BaseException as error:  # noqa: BLE001 - the one who waits for the result is told, else he waits for ever
            self._result.set_exception(error)


def open_shards(source: str, counts: Path | None = None) -> Shards:
    """Return the shards of "train-{000..122}.tar", "train-*.tar", a folder, or the same as http(s)://, s3:// and other URLs.

    `counts` is a file of this list's own that keeps how many pictures each holds. Raises CardiganError for local shards that are missing.
    """
    addresses = addresses_of(source)
    sizes, stamps = _seen(source, addresses)
    return Shards(source, addresses, fingerprint((*addresses, *sizes)), Tallies(counts, stamps))


def _seen(source: str, addresses: tuple[str, ...]) -> tuple[list[int], dict[str, str]]:
    """Return the sizes of local shards, and what tells of each that it was changed: size and time, nothing for a remote one."""
    sizes, stamps, missing = [], dict.fromkeys(addresses, ""), []
    for address in addresses:
        if is_remote(address):
            continue
        try:
            found = Path(address).stat()
        except OSError:
            missing.append(address)
            continue
        sizes.append(found.st_size)
        stamps[address] = f"{found.st_size}/{found.st_mtime_ns}"
    if missing:
        raise CardiganError(
            f"{source!r} names {len(addresses):,} shards, and {some(missing)} {'is' if len(missing) == 1 else 'are'} not there: "
            "fetch what is missing, or name only what is there."
        )
    return sizes, stamps
