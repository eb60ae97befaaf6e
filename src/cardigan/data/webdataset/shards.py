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

from cardigan.data.formats.file_names import no_images_error
from cardigan.data.reader import fingerprint
from cardigan.data.webdataset.addresses import is_remote, list_addresses, shard_addresses, shard_name
from cardigan.data.webdataset.addresses import is_shards as is_shards
from cardigan.data.webdataset.addresses import shard_changes as shard_changes
from cardigan.data.webdataset.byte_stream import ReadCancelled, open_shard
from cardigan.data.webdataset.shard_counts import ShardCountsCache
from cardigan.data.webdataset.tar import ShardCounts, ShardImage, read_images
from cardigan.errors import CardiganError
from cardigan.rng import stream

GROUP_IMAGES = 8192
"""A group takes shards until it has this many pictures,"""
GROUP_BYTES = 1 << 29
"""or this many bytes of pictures. Memory holds one group: what is left of the one in use, and as large a part of the next."""
READ_AHEAD_BYTES = 1 << 22
"""So much more of the next group is read."""


class ShardEntry(NamedTuple):
    """One picture, not decoded."""

    name: str
    """What it is called in a message: its shard and its path in it."""
    stored_image: bytes
    label: str | int | None


class ShardGroup(NamedTuple):
    """Shards that stand together in an epoch's order, whose pictures are shuffled together."""

    epoch: int
    group_index: int
    """How many groups the epoch has had before; less than the number of shards."""
    start: int
    """The place of its first shard in the epoch's order. It ends as soon as it is full, or the epoch is over."""


GroupContent: TypeAlias = tuple[list[ShardEntry], ShardGroup]
"""A group's pictures in the order they lie, and the group that follows."""
KeepReading: TypeAlias = Callable[[int], bool]
"""Waits until there is room for so many bytes; whether they are still wanted then."""


@dataclass(frozen=True)
class Shards:
    """A fixed list of tar files with pictures."""

    name: str
    """What the user gave."""
    addresses: tuple[str, ...]
    fingerprint: str
    """Changes if the list does, or the size of a local shard."""
    counts: ShardCountsCache = field(repr=False, compare=False)

    def count_images(self) -> int:
        """Return the number of pictures; reads the headers of every shard not counted yet, which for a remote one is all of it."""
        total = sum(self.counts[address].num_images for address in self.addresses)
        self.counts.save()
        return total

    @property
    def skipped(self) -> dict[str, int]:
        """How many entries were not taken for pictures, by reason, in the shards counted so far."""
        return dict(sum((Counter(found.skipped) for found in self.counts.known()), Counter()))

    def split_holdout(self, count: int) -> tuple["Shards", list[ShardEntry]]:
        """Return the shards without the last ones, as few as hold `count` pictures, and the first so many of those.

        Raises CardiganError if nothing would be left.
        """
        train_addresses, holdout_entries = list(self.addresses), list[ShardEntry]()
        while len(holdout_entries) < count:
            address = train_addresses.pop()
            if not train_addresses:
                raise CardiganError(
                    f"data.holdout is {count:,}, but whole shards are held out, and of the {len(self.addresses)} of {self.name} "
                    "none would be left to train on: give a smaller number, or more shards."
                )
            with open_shard(address) as shard:
                images = islice(read_images(shard, Counter()), count - len(holdout_entries))
                holdout_entries += [_shard_entry(address, image) for image in images]
        return replace(self, addresses=tuple(train_addresses)), holdout_entries

    def entries(self, seed: int, images_seen: int) -> Generator[ShardEntry, None, None]:
        """Yield the pictures that follow the first `images_seen`, without end; none comes twice in an epoch, none is left out.

        A thread reads the next group meanwhile, at the pace at which this one is used up; closing the iterator ends it.
        """
        group, num_skipped = self._locate(seed, images_seen)
        reader = BackgroundReader(partial(self._read_group, seed, group))
        largest_group_bytes = 0
        try:
            while True:
                entries, next_group = reader.result()
                permutation = self._permutation(seed, group, len(entries))[num_skipped:]
                group, num_skipped = next_group, 0
                reader = BackgroundReader(partial(self._read_group, seed, group))
                shuffled = [entries[position] for position in reversed(permutation)]
                del entries
                group_bytes = sum(len(entry.stored_image) for entry in shuffled)
                largest_group_bytes = max(
                    largest_group_bytes, group_bytes
                )  # the next may be larger than this, which may be the small rest of an epoch
                while shuffled:
                    entry = shuffled.pop()
                    reader.allow_bytes(len(entry.stored_image) * largest_group_bytes / max(group_bytes, 1))
                    yield entry
        finally:
            reader.stop()
            self.counts.save()

    def _locate(self, seed: int, images_seen: int) -> tuple[ShardGroup, int]:
        """Return the group that picture `images_seen` is of, and how many of the group's pictures come before it.

        Counts only the groups before and that one, as long as the first epoch is not over.
        """
        if images_seen == 0:
            return ShardGroup(0, 0, 0), 0
        epoch, remaining = 0, images_seen
        while True:
            for group, num_images in self._groups(seed, epoch):
                if remaining < num_images:
                    return group, remaining
                remaining -= num_images
            num_images_per_epoch = self.count_images()  # all are counted now
            if not num_images_per_epoch:
                raise no_images_error(self.name, self.skipped)
            epoch, remaining = epoch + 1 + remaining // num_images_per_epoch, remaining % num_images_per_epoch

    def _groups(self, seed: int, epoch: int) -> Iterator[tuple[ShardGroup, int]]:
        """Yield an epoch's groups with their numbers of pictures, as `_read` forms them."""
        shards = self._shuffled_addresses(seed, epoch)
        index = position = 0
        while position < len(shards):
            group, num_images, num_bytes = ShardGroup(epoch, index, position), 0, 0
            while position < len(shards) and not _is_full(num_images, num_bytes):
                shard_counts = self.counts[shards[position]]
                num_images, num_bytes, position = (
                    num_images + shard_counts.num_images,
                    num_bytes + shard_counts.num_bytes,
                    position + 1,
                )
            yield group, num_images
            index += 1

    def _read_group(self, seed: int, group: ShardGroup, keep_reading: KeepReading) -> GroupContent:
        """Return a group's pictures, and the group that follows it; what is not wanted any more may be left out."""
        shards = self._shuffled_addresses(seed, group.epoch)
        entries: list[ShardEntry] = []
        position, num_bytes = group.start, 0
        while position < len(shards) and not _is_full(len(entries), num_bytes) and keep_reading(0):
            num_bytes += self._read_shard(shards[position], entries, keep_reading)
            position += 1
        if position < len(shards):
            return entries, ShardGroup(group.epoch, group.group_index + 1, position)
        if group.start == 0 and not entries and keep_reading(0):
            raise no_images_error(self.name, self.skipped)
        return entries, ShardGroup(group.epoch + 1, 0, 0)

    def _read_shard(self, address: str, entries: list[ShardEntry], keep_reading: KeepReading) -> int:
        """Add a shard's pictures to `entries`; returns how many bytes they have."""
        num_images, num_bytes = 0, 0
        skipped: Counter[str] = Counter()
        try:
            with open_shard(address, lambda: keep_reading(0)) as shard:
                for image in read_images(shard, skipped):
                    if not keep_reading(image.size):
                        return num_bytes
                    entries.append(_shard_entry(address, image))
                    num_images, num_bytes = num_images + 1, num_bytes + image.size
        except ReadCancelled:
            return num_bytes
        self.counts.verify(address, ShardCounts(num_images, num_bytes, dict(skipped)))
        return num_bytes

    def _shuffled_addresses(self, seed: int, epoch: int) -> list[str]:
        order = torch.randperm(len(self.addresses), generator=stream(seed, "shards", epoch))
        return [self.addresses[position] for position in order.tolist()]

    def _permutation(self, seed: int, group: ShardGroup, count: int) -> list[int]:
        step = group.epoch * len(self.addresses) + group.group_index
        return torch.randperm(count, generator=stream(seed, "in shards", step)).tolist()


def _shard_entry(address: str, image: ShardImage) -> ShardEntry:
    return ShardEntry(f"{shard_name(address)}/{image.name}", image.content, image.label)


def _is_full(count: int, size: int) -> bool:
    """Return whether a group takes no further shard; decided by those it has, so that nothing must be known of the rest."""
    return count >= GROUP_IMAGES or size >= GROUP_BYTES


class BackgroundReader:
    """Pictures that are read in a thread, no more of them than was allowed; what went wrong there is raised where the result is asked for."""

    def __init__(self, read: Callable[[KeepReading], GroupContent]) -> None:
        self._condition = threading.Condition()
        self._allowed_bytes: float = READ_AHEAD_BYTES
        self._stopped = False
        self._result: Future[GroupContent] = Future()
        threading.Thread(target=self._run, args=(read,), daemon=True, name="shards").start()

    def allow_bytes(self, size: float) -> None:
        """Let so many more bytes be read."""
        with self._condition:
            self._allowed_bytes += size
            self._condition.notify()

    def result(self) -> GroupContent:
        """Return all that was to be read, when it is."""
        self.allow_bytes(math.inf)
        return self._result.result()

    def stop(self) -> None:
        """Let the thread end at the next piece of a shard; does not wait for it, since a server may keep it waiting."""
        with self._condition:
            self._stopped = True
            self._condition.notify()

    def _wait_for_room(self, size: int) -> bool:
        """Return whether so many bytes are still wanted, once there is room for them."""
        with self._condition:
            self._condition.wait_for(lambda: self._stopped or self._allowed_bytes >= size)
            self._allowed_bytes -= size
            return not self._stopped

    def _run(self, read: Callable[[KeepReading], GroupContent]) -> None:
        try:
            self._result.set_result(read(self._wait_for_room))
        except BaseException as error:  # noqa: BLE001 - the one who waits for the result is told, else he waits for ever
            self._result.set_exception(error)


def open_shards(source: str, counts_path: Path | None = None) -> Shards:
    """Return the shards of "train-{000..122}.tar", "train-*.tar", a folder, or the same as http(s)://, s3:// and other URLs.

    `counts_path` is a file of this list's own that keeps how many pictures each holds. Raises CardiganError for local shards that are missing.
    """
    addresses = shard_addresses(source)
    sizes, signatures = _stat_shards(source, addresses)
    return Shards(source, addresses, fingerprint((*addresses, *sizes)), ShardCountsCache(counts_path, signatures))


def _stat_shards(source: str, addresses: tuple[str, ...]) -> tuple[list[int], dict[str, str]]:
    """Return the sizes of local shards, and what tells of each that it was changed: size and time, nothing for a remote one."""
    sizes, signatures, missing = [], dict.fromkeys(addresses, ""), []
    for address in addresses:
        if is_remote(address):
            continue
        try:
            status = Path(address).stat()
        except OSError:
            missing.append(address)
            continue
        sizes.append(status.st_size)
        signatures[address] = f"{status.st_size}/{status.st_mtime_ns}"
    if missing:
        raise CardiganError(
            f"{source!r} names {len(addresses):,} shards, and {list_addresses(missing)} {'is' if len(missing) == 1 else 'are'} not there: "
            "fetch what is missing, or name only what is there."
        )
    return sizes, signatures
