"""Images streamed from tar shards: endless, reshuffled each epoch, a pure function of (seed, images_seen).

Each epoch reads the shards in a new order, one group of shards at a time, and shuffles the images of each group.
Does not decode them.
"""

import math
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch

from cardigan.data.formats.file_names import no_images_error
from cardigan.data.reader import fingerprint
from cardigan.data.webdataset.addresses import is_remote, list_addresses, shard_addresses, shard_name, training_shards
from cardigan.data.webdataset.addresses import is_shards as is_shards
from cardigan.data.webdataset.addresses import shard_changes as shard_changes
from cardigan.data.webdataset.byte_stream import ReadCancelled, open_shard
from cardigan.data.webdataset.shard_counts import ShardCountsCache, local_signature
from cardigan.data.webdataset.tar import ShardCounts, ShardImage, read_images
from cardigan.errors import CardiganError
from cardigan.files.special_files import reject_special_file
from cardigan.rng import stream

GROUP_IMAGES = 8192
"""A group is full when it has this many images ..."""
GROUP_BYTES = 1 << 29
"""... or this many bytes of images. Memory holds about one group: the rest of this one and a part of the next."""
READ_AHEAD_BYTES = 1 << 22
"""Bytes of the next group that are read in addition."""


class ShardEntry(NamedTuple):
    """One encoded image."""

    name: str
    """Its shard and its path in it, for messages."""
    stored_image: bytes
    label: str | int | None


class ShardGroup(NamedTuple):
    """Consecutive shards of an epoch's order whose images are shuffled together."""

    epoch: int
    group_index: int
    """Index of the group in the epoch; less than the number of shards."""
    start: int
    """Position of its first shard in the epoch's order. It ends when it is full or the epoch is over."""


GroupContent: TypeAlias = tuple[list[ShardEntry], ShardGroup]
"""A group's images in stored order, and the next group."""
KeepReading: TypeAlias = Callable[[int], bool]
"""Waits until there is room for this many bytes; returns whether they are still needed."""


@dataclass(frozen=True)
class Shards:
    """A fixed list of tar files with images."""

    name: str
    """The source as the user gave it."""
    addresses: tuple[str, ...]
    fingerprint: str
    """A hash that changes with the list or the size of a local shard."""
    counts: ShardCountsCache = field(repr=False, compare=False)
    retry_seconds: float | None = None
    """How long a broken connection is retried; `open_shard` has the default."""
    notes: tuple[str, ...] = ()
    """What the user should know about the choice of shards."""

    def count_images(self) -> int:
        """Return the number of images. A count reads the headers of new shards; for a remote shard, the whole file."""
        total = sum(self.counts[address].num_images for address in self.addresses)
        self.counts.save()
        return total

    @property
    def skipped(self) -> dict[str, int]:
        """Number of entries that are not images, by reason, in the shards counted so far."""
        return dict(sum((Counter(found.skipped) for found in self.counts.known()), Counter()))

    def split_holdout(self, count: int) -> tuple["Shards", list[ShardEntry]]:
        """Return the training shards, and the first `count` images of the last shards, which are held out as a whole.

        Holds out as few shards as possible. Raises CardiganError if no training shard remains.
        """
        train_addresses, holdout_entries = list(self.addresses), list[ShardEntry]()
        while len(holdout_entries) < count:
            address = train_addresses.pop()
            if not train_addresses:
                raise CardiganError(
                    f"data.holdout is {count:,}, but whole shards are held out, and none of the {len(self.addresses)} "
                    f"shards of {self.name} would be left to train on: give a smaller number, or more shards."
                )
            with open_shard(address) as shard:
                images = islice(read_images(shard, Counter()), count - len(holdout_entries))
                holdout_entries += [_shard_entry(address, image) for image in images]
        return replace(self, addresses=tuple(train_addresses)), holdout_entries

    def entries(self, seed: int, images_seen: int) -> Generator[ShardEntry, None, None]:
        """Yield the images that follow the first `images_seen`, endlessly. Each image occurs once per epoch.

        A thread reads the next group at the pace at which this one is consumed. Closing the iterator stops it.
        """
        group, num_skipped = self._locate(seed, images_seen)
        reader = self._start_reading(seed, group)
        largest_group_bytes = 0
        try:
            while True:
                entries, next_group = reader.result()
                permutation = self._permutation(seed, group, len(entries))[num_skipped:]
                group, num_skipped = next_group, 0
                reader = self._start_reading(seed, group)
                shuffled = [entries[position] for position in reversed(permutation)]
                del entries
                group_bytes = sum(len(entry.stored_image) for entry in shuffled)
                # This group may be the small rest of an epoch, and the next one larger.
                largest_group_bytes = max(largest_group_bytes, group_bytes)
                while shuffled:
                    entry = shuffled.pop()
                    reader.allow_bytes(len(entry.stored_image) * largest_group_bytes / max(group_bytes, 1))
                    yield entry
        finally:
            reader.stop()
            self.counts.save()

    def _locate(self, seed: int, images_seen: int) -> tuple[ShardGroup, int]:
        """Return the group of image `images_seen`, and the number of the group's images before it.

        In the first epoch, it counts only the groups up to this one.
        """
        if images_seen == 0:
            return ShardGroup(0, 0, 0), 0
        epoch, remaining = 0, images_seen
        while True:
            for group, num_images in self._groups(seed, epoch):
                if remaining < num_images:
                    return group, remaining
                remaining -= num_images
            num_images_per_epoch = self.count_images()  # all shards are counted now
            if not num_images_per_epoch:
                raise no_images_error(self.name, self.skipped)
            epoch, remaining = epoch + 1 + remaining // num_images_per_epoch, remaining % num_images_per_epoch

    def _groups(self, seed: int, epoch: int) -> Iterator[tuple[ShardGroup, int]]:
        """Yield an epoch's groups with their numbers of images, as `_read_group` forms them."""
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

    def _start_reading(self, seed: int, group: ShardGroup) -> "BackgroundReader":
        """Read a group in a thread. Shuffles here: a thread inside torch while Python ends would abort the process."""
        shards = self._shuffled_addresses(seed, group.epoch)
        return BackgroundReader(partial(self._read_group, shards, group))

    def _read_group(self, shards: Sequence[str], group: ShardGroup, keep_reading: KeepReading) -> GroupContent:
        """Return a group's images and the next group. Incomplete once `keep_reading` returns false.

        `shards` are the addresses of all shards in the order of the group's epoch.
        """
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
        """Append a shard's images to `entries`; return their number of bytes."""
        num_images, num_bytes = 0, 0
        skipped: Counter[str] = Counter()
        try:
            with open_shard(address, lambda: keep_reading(0), self.retry_seconds) as shard:
                for image in read_images(shard, skipped):
                    if not keep_reading(image.size):
                        return num_bytes
                    entries.append(_shard_entry(address, image))
                    num_images, num_bytes = num_images + 1, num_bytes + image.size
        except ReadCancelled:
            return num_bytes
        self.counts.verify(address, ShardCounts(num_images, num_bytes, dict(skipped)))
        self.counts.check_unchanged(address)
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
    """Return whether a group takes no more shards. It depends only on the shards that the group has."""
    return count >= GROUP_IMAGES or size >= GROUP_BYTES


class BackgroundReader:
    """Reads a group in a thread, no more bytes than allowed. `result` raises the errors of the thread."""

    def __init__(self, read: Callable[[KeepReading], GroupContent]) -> None:
        self._condition = threading.Condition()
        self._allowed_bytes: float = READ_AHEAD_BYTES
        self._stopped = False
        self._result: Future[GroupContent] = Future()
        threading.Thread(target=self._run, args=(read,), daemon=True, name="shards").start()

    def allow_bytes(self, size: float) -> None:
        """Allow `size` more bytes."""
        with self._condition:
            self._allowed_bytes += size
            self._condition.notify()

    def result(self) -> GroupContent:
        """Wait for the group and return it."""
        self.allow_bytes(math.inf)
        return self._result.result()

    def stop(self) -> None:
        """Stop the thread at its next read. Does not wait for it, since a server may be slow."""
        with self._condition:
            self._stopped = True
            self._condition.notify()

    def _wait_for_room(self, size: int) -> bool:
        """Wait until there is room for `size` bytes; return whether they are still needed."""
        with self._condition:
            self._condition.wait_for(lambda: self._stopped or self._allowed_bytes >= size)
            self._allowed_bytes -= size
            return not self._stopped

    def _run(self, read: Callable[[KeepReading], GroupContent]) -> None:
        try:
            self._result.set_result(read(self._wait_for_room))
        except BaseException as error:  # noqa: BLE001 - `result` raises it; otherwise `result` would wait forever
            self._result.set_exception(error)


def open_shards(source: str, counts_path: Path | None = None, all_parts: bool = False) -> Shards:
    """Return the shards of "train-{000..122}.tar", "train-*.tar", a folder, or a URL (http(s)://, s3://, ...).

    Test shards beside training shards are left out, unless `all_parts` or braces name them.
    `counts_path` is the cache file for the counts of this list. Raises CardiganError if local shards are missing.
    """
    found = shard_addresses(source)
    addresses = found if all_parts else training_shards(source, found)
    unread = [address for address in found if address not in set(addresses)]
    notes = (_unread_note(unread),) if unread else ()
    sizes, signatures = _stat_shards(source, addresses)
    return Shards(
        source, addresses, fingerprint((*addresses, *sizes)), ShardCountsCache(counts_path, signatures), notes=notes
    )


def _unread_note(unread: Sequence[str]) -> str:
    return (
        f"images: {len(unread):,} shards such as {shard_name(unread[0])} are not read, because there are training "
        "shards beside them (--data.split all reads all)"
    )


def _stat_shards(source: str, addresses: tuple[str, ...]) -> tuple[list[int], dict[str, str]]:
    """Return the sizes of local shards, and the signature of each shard: size and time, "" for a remote one."""
    sizes, signatures, missing = [], dict.fromkeys(addresses, ""), []
    for address in addresses:
        if is_remote(address):
            continue
        try:
            status = Path(address).stat()
            reject_special_file(Path(address))
        except OSError:
            missing.append(address)
            continue
        sizes.append(status.st_size)
        signatures[address] = local_signature(status)
    if missing:
        raise CardiganError(
            f"{source!r} names {len(addresses):,} shards, and {list_addresses(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing: add the missing files, or name only existing shards."
        )
    return sizes, signatures
