"""Worker processes that decode images ahead of time. The order does not depend on the number of workers.

Knows entries and `DecodeSpec`. Does not know how the pixels are used.
"""

import os
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from torch.utils.data import Dataset

from cardigan.data.decoding import DecodeSpec, conversion_note, open_image, to_pixels
from cardigan.data.reader import SOURCE_CHANGED, Reader, UnreadableImage
from cardigan.data.worker_processes import PREFETCH_FACTOR, WorkerDied, WorkerProcesses
from cardigan.errors import CardiganError

CAN_FORK = sys.platform == "linux"
MAX_WORKERS = 16
"""Maximum default number of workers."""
CHUNK_SIZE = 64


class WorkerLost(CardiganError):
    """A worker process died. The training state is consistent."""


@dataclass
class DecodedChunk:
    """Decoded images, uint8 [n, height, width, channels], of the entries `indices`. `unreadable` holds the failures."""

    pixels: np.ndarray
    indices: list[int]
    unreadable: dict[int, str] = field(default_factory=dict)
    conversions: Counter[str] = field(default_factory=Counter)
    labels: list[int] = field(default_factory=list)
    """Classes, for sources that store them with the images."""
    error: str = ""
    """Why the stream ended. Exceptions lose their message between processes."""


class DecodingDataset(Dataset[DecodedChunk]):
    """Decodes entries by index, or, with `candidates`, by position in that list of entries."""

    def __init__(self, reader: Reader, spec: DecodeSpec, candidates: Sequence[int] | None) -> None:
        self.reader, self.spec, self.candidates = reader, spec, candidates

    def __getitem__(self, index: int) -> DecodedChunk:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> DecodedChunk:
        spec = self.spec
        chunk = DecodedChunk(np.empty((len(indices), spec.height, spec.width, spec.channels), np.uint8), [])
        try:
            for index in indices:
                self._decode_into(chunk, index)
        except CardiganError as error:
            chunk.error = str(error)
        chunk.pixels = chunk.pixels[: len(chunk.indices)]
        return chunk

    def _decode_into(self, chunk: DecodedChunk, index: int) -> None:
        """Append one image. With `candidates`, the next readable entry replaces an unreadable one."""
        candidates = self.candidates
        for entry in (
            [index]
            if candidates is None
            else (candidates[(index + attempt) % len(candidates)] for attempt in range(len(candidates)))
        ):
            try:
                with open_image(self.reader.read(entry), self.spec.max_pixels) as image:
                    chunk.conversions[conversion_note(image)] += 1
                    chunk.pixels[len(chunk.indices)] = to_pixels(image, self.spec)
                chunk.indices.append(entry)
                return
            except UnreadableImage as error:
                chunk.unreadable[entry] = str(error)


def decode_chunks(
    reader: Reader,
    spec: DecodeSpec,
    index_lists: Iterable[list[int]],
    workers: int | None,
    candidates: Sequence[int] | None = None,
) -> Iterator[DecodedChunk]:
    """Yield one chunk per list of entry indices in `index_lists`, which may be endless.

    `workers` processes decode ahead. Default: one per core; 0 decodes in this process. With `candidates`, the indices
    are positions in that list, and the next readable entry replaces an unreadable one, so that chunks are always full.
    Raises WorkerLost if a worker dies.
    """
    return load_chunks(DecodingDataset(reader, spec, candidates), index_lists, reader.name, num_workers(workers))


def load_chunks(
    dataset: Dataset[DecodedChunk], index_lists: Iterable[list[int]] | None, name: str, workers: int
) -> Iterator[DecodedChunk]:
    """Yield one chunk per list in `index_lists`, or, if it is None, the chunks of an iterable dataset.

    `workers` processes load ahead; 0 loads in this process. Workers get the source by fork. A thread replaces them on
    systems that cannot fork. Raises WorkerLost if a worker dies, and CardiganError for a chunk with an error.
    """
    load = _load_in_turn
    if workers:
        load = partial(_load_in_processes, name=name, workers=workers) if CAN_FORK else _load_in_thread
    for chunk in load(dataset, index_lists):
        if chunk.error:
            raise CardiganError(chunk.error)
        chunk.conversions.pop("", None)
        yield chunk


def _load_in_thread(dataset: Dataset[DecodedChunk], index_lists: Iterable[list[int]] | None) -> Iterator[DecodedChunk]:
    chunks = _load_in_turn(dataset, index_lists)
    with ThreadPoolExecutor(1, "decoding") as thread:
        pending = deque(thread.submit(next, chunks, None) for _ in range(PREFETCH_FACTOR))
        try:
            while (chunk := pending.popleft().result()) is not None:
                pending.append(thread.submit(next, chunks, None))
                yield chunk
        finally:
            thread.shutdown(cancel_futures=True)
            chunks.close()  # pyright: ignore[reportAttributeAccessIssue] - it is a generator


def _load_in_processes(
    dataset: Dataset[DecodedChunk], index_lists: Iterable[list[int]] | None, name: str, workers: int
) -> Iterator[DecodedChunk]:
    """Load in forked processes. The pipes end with the process that writes them, so a dead one is noticed at once."""

    def load(tasks: Iterator[list[int]]) -> Iterator[DecodedChunk]:
        return _load_in_turn(dataset, None if index_lists is None else tasks)

    processes = WorkerProcesses[DecodedChunk](load, workers)
    try:
        yield from processes.chunks() if index_lists is None else processes.chunks_of(index_lists)
    except WorkerDied as error:
        raise WorkerLost(
            f"A process that decodes images of {name} died ({error}), most likely for lack of memory: "
            "set data.num_workers to a smaller number, or to 0."
        ) from error
    finally:
        processes.stop()


def _load_in_turn(dataset: Dataset[DecodedChunk], index_lists: Iterable[list[int]] | None) -> Iterator[DecodedChunk]:
    if index_lists is None:
        yield from iter(dataset)  # pyright: ignore[reportArgumentType] - an iterable dataset
    else:
        for indices in index_lists:
            yield dataset.__getitems__(indices)  # pyright: ignore[reportAttributeAccessIssue] - a DecodingDataset


def num_workers(workers: int | None) -> int:
    """Return the number of worker processes. Default: this process's share of the cores, at most `MAX_WORKERS`."""
    if not CAN_FORK:
        return 0 if workers == 0 else 1
    processes_per_node = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(max(1, len(os.sched_getaffinity(0)) // processes_per_node), MAX_WORKERS) if workers is None else workers


def consecutive_chunks(count: int, chunk_size: int = CHUNK_SIZE) -> Iterator[list[int]]:
    """Yield 0..count-1 in lists of `chunk_size`."""
    for start in range(0, count, chunk_size):
        yield list(range(start, min(start + chunk_size, count)))


def unreadable_error(name: str, count: int, unreadable: dict[str, str]) -> CardiganError | None:
    """Return the error for a source with more than one unreadable image and more than 1 %, None for others."""
    if len(unreadable) <= 1 or len(unreadable) * 100 <= count:
        return None
    num_changed = sum(reason == SOURCE_CHANGED for reason in unreadable.values())
    entry_name, reason = next(iter(unreadable.items()))
    if num_changed * 2 > len(unreadable):
        return CardiganError(
            f"{name} was changed while it was read ({num_changed:,} of {count:,} images are not those that it held, "
            f"such as {entry_name}): restore it, or start again."
        )
    rest = "" if len(unreadable) == 1 else f", and {len(unreadable) - 1:,} more"
    return CardiganError(
        f"{len(unreadable):,} of the {count:,} images of {name} cannot be used ({entry_name} {reason}{rest}), more "
        f"than 1 %: list them with `cardigan check {name}`, write a copy without them (--write-clean), and train on it."
    )
