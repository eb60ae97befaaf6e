"""Batches decoded during training, for sources that are not cached: readers with access by index, and shards.

The order is a function of (seed, images seen) alone. Worker processes only decode ahead.
"""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count, islice
from os import cpu_count

import numpy as np
import torch
from torch.utils.data import IterableDataset

from cardigan.config_parts import DataConfig
from cardigan.data.batches import IndexSampler
from cardigan.data.decoding import DecodeSpec, decode_image
from cardigan.data.prefetch import BatchStream
from cardigan.data.reader import Reader, UnreadableImage
from cardigan.data.source import ImageSource
from cardigan.data.stats import DatasetStats, entry_stats
from cardigan.data.webdataset.shards import ShardEntry, Shards, open_shards
from cardigan.data.workers import DecodedChunk, decode_chunks, load_chunks, unreadable_error
from cardigan.errors import CardiganError
from cardigan.files import disk_cache
from cardigan.rng import stream
from cardigan.shapes import Labels, Pixels

MIN_IMAGES_BEFORE_ERROR = 1_000
"""Number of images read before the fraction of unreadable ones counts as an error."""
NUM_STATS_IMAGES = 200
COUNTS_FORMAT = 2
"""Increased when the same shards would give other counts."""


def reader_stream(
    reader: Reader,
    spec: DecodeSpec,
    data: DataConfig,
    train_entries: list[int],
    labels: Labels,
    seed: int,
    batch_size: int,
    rank_slice: slice,
) -> BatchStream:
    """Return the stream of a source with access by index. It reshuffles `train_entries` each epoch.

    `labels` are the classes of all entries. The next readable entry replaces an unreadable one.
    """
    sampler = IndexSampler(len(train_entries) * (2 if data.horizontal_flip else 1), seed)

    def batches(images_seen: int) -> Generator[tuple[Pixels, Labels], None, None]:
        flips: deque[torch.Tensor] = deque()
        unreadable: dict[str, str] = {}

        def index_lists() -> Iterator[list[int]]:
            for step_images_seen in count(images_seen, batch_size):
                indices = sampler.indices_at(step_images_seen, batch_size)[rank_slice]
                flips.append(indices >= len(train_entries))
                yield (indices % len(train_entries)).tolist()

        for chunk in decode_chunks(reader, spec, index_lists(), data.num_workers, candidates=train_entries):
            if chunk.unreadable:
                unreadable |= {reader.entry_name(entry): reason for entry, reason in chunk.unreadable.items()}
                _check_unreadable(reader.name, len(reader), unreadable)
            yield _flip(torch.from_numpy(chunk.pixels).permute(0, 3, 1, 2), flips.popleft()), labels[chunk.indices]

    return batches


def _flip(pixels: Pixels, flip_mask: torch.Tensor) -> Pixels:
    return torch.where(flip_mask[:, None, None, None], pixels.flip(3), pixels)


def _check_unreadable(name: str, num_read: int, unreadable: dict[str, str]) -> None:
    error = unreadable_error(name, num_read, unreadable)
    if error is not None:
        raise error


def shards_from_config(data: DataConfig) -> Shards:
    """Return the shards, with the cached counts of their images."""
    counts_path = (
        disk_cache.cache_dir() / "shards" / f"{disk_cache.cache_key('shards', str(COUNTS_FORMAT), data.source)}.json"
    )
    return open_shards(data.source, counts_path, all_parts=data.split == "all")


def shard_stream(
    shards: Shards, spec: DecodeSpec, data: DataConfig, num_classes: int, seed: int, batch_size: int, rank_slice: slice
) -> BatchStream:
    """Return the stream of shards. Each process reads all shards and decodes its slice of each batch. The processes of
    a node fetch each remote shard once.

    With `data.horizontal_flip`, each image is flipped with probability 0.5.
    """

    def batches(images_seen: int) -> Generator[tuple[Pixels, Labels], None, None]:
        retried = replace(shards, retry_seconds=data.retry_seconds)
        dataset = ShardBatchDataset(retried, spec, num_classes, seed, images_seen, batch_size, rank_slice)
        for step_images_seen, chunk in zip(
            count(images_seen, batch_size),
            load_chunks(dataset, None, shards.name, 0 if data.num_workers == 0 else 1),
            strict=False,
        ):
            pixels = torch.from_numpy(chunk.pixels).permute(0, 3, 1, 2)
            yield (
                _flip(pixels, _flip_mask(seed, step_images_seen, batch_size)[rank_slice])
                if data.horizontal_flip
                else pixels,
                torch.tensor(chunk.labels),
            )

    return batches


def _flip_mask(seed: int, images_seen: int, batch_size: int) -> torch.Tensor:
    return torch.rand(batch_size, generator=stream(seed, "mirror", images_seen)) < 0.5


class ShardBatchDataset(IterableDataset[DecodedChunk]):
    """Yields one chunk per step. One thread reads and several decode; each shard's bytes are read once."""

    def __init__(
        self,
        shards: Shards,
        spec: DecodeSpec,
        num_classes: int,
        seed: int,
        images_seen: int,
        batch_size: int,
        rank_slice: slice,
    ) -> None:
        self.shards, self.spec, self.num_classes = shards, spec, num_classes
        self.seed, self.images_seen, self.batch_size, self.rank_slice = seed, images_seen, batch_size, rank_slice

    def __iter__(self) -> Iterator[DecodedChunk]:
        entries = self.shards.entries(self.seed, self.images_seen)
        unreadable: dict[str, str] = {}
        num_read = 0
        with ThreadPoolExecutor(cpu_count() or 1) as threads:
            try:
                while True:
                    batch_entries = list(islice(entries, self.batch_size))[self.rank_slice]
                    num_read += len(batch_entries)
                    chunk = self._decode_batch(batch_entries, threads, unreadable)
                    if unreadable and num_read >= MIN_IMAGES_BEFORE_ERROR:
                        _check_unreadable(self.shards.name, num_read, unreadable)
                    yield chunk
            except CardiganError as error:
                yield DecodedChunk(np.empty(0, np.uint8), [], error=str(error))
            finally:
                entries.close()  # pyright: ignore[reportAttributeAccessIssue] - it is a generator

    def _decode_batch(
        self, entries: list[ShardEntry], threads: ThreadPoolExecutor, unreadable: dict[str, str]
    ) -> DecodedChunk:
        """Return the decoded entries.

        The previous readable entry of the step, or else the first readable one, replaces an unreadable one.
        """
        decoded = list(threads.map(self._decode_entry, entries))
        readable_indices = [number for number, pixels in enumerate(decoded) if isinstance(pixels, np.ndarray)]
        if not readable_indices:
            raise CardiganError(
                f"None of {len(entries)} consecutive images of {self.shards.name} can be read, "
                f"such as {entries[0].name}."
            )
        unreadable |= {
            entry.name: pixels for entry, pixels in zip(entries, decoded, strict=True) if isinstance(pixels, str)
        }
        source_indices = [
            max((position for position in readable_indices if position <= number), default=readable_indices[0])
            for number in range(len(decoded))
        ]
        labels = [shard_label(entries[number], self.num_classes) for number in source_indices]
        return DecodedChunk(np.stack([decoded[number] for number in source_indices]), [], labels=labels)

    def _decode_entry(self, entry: ShardEntry) -> np.ndarray | str:
        try:
            return decode_image(entry.stored_image, self.spec)
        except UnreadableImage as error:
            return str(error)


def infer_num_classes(first_entries: list[ShardEntry]) -> int:
    """Return the number of classes according to the first images. Class indices start at 0."""
    labels = [entry.label for entry in first_entries]
    return 1 + max((int(label) for label in labels if label is not None and str(label).isdecimal()), default=-1)


def shard_label(entry: ShardEntry, num_classes: int) -> int:
    """Return an entry's class: -1 if it is missing or not in 0..num_classes - 1; 0 if there are no classes."""
    if not num_classes:
        return 0
    is_valid = str(entry.label).isdecimal() and int(str(entry.label)) < num_classes
    return int(str(entry.label)) if is_valid else -1


def preview_source(shards: Shards, first_entries: list[ShardEntry], spec: DecodeSpec, num_classes: int) -> ImageSource:
    """Return the first images of the shards, decoded, for previews."""
    pixels, labels = [], []
    for entry in first_entries:
        try:
            pixels.append(decode_image(entry.stored_image, spec))
            labels.append(shard_label(entry, num_classes))
        except UnreadableImage:
            continue
    if not pixels:
        raise CardiganError(
            f"None of the first images of {shards.name} can be read: inspect one of its shards with a tar program."
        )
    return ImageSource(
        shards.name, torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2), torch.tensor(labels), num_classes
    )


def shard_stats(shards: Shards, max_pixels: int) -> DatasetStats:
    """Return statistics of the shards' first images, with an estimate of the number of images."""
    stored_images = [entry.stored_image for entry in read_first_entries(shards, NUM_STATS_IMAGES)]
    first_address = shards.addresses[0]
    num_shards = len(shards.addresses)
    return entry_stats(
        stored_images, num_shards * shards.counts[first_address].num_images, num_shards, shards.name, max_pixels
    )


def read_first_entries(shards: Shards, max_entries: int) -> list[ShardEntry]:
    """Return at most `max_entries` images from the start of the first epoch."""
    entries = shards.entries(0, 0)
    try:
        names: set[str] = set()
        found = []
        for entry in islice(entries, max_entries):
            if entry.name in names:
                break  # a second epoch has begun
            names.add(entry.name)
            found.append(entry)
        return found
    finally:
        entries.close()  # pyright: ignore[reportAttributeAccessIssue] - it is a generator
