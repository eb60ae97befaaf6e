"""Every picture of a source looked at once, by several processes where that is faster.

Knows how the work is shared, not what is seen.
"""

import mmap
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeAlias

from cardigan.data.quality.image_stats import ImageStats, InspectionFailure, inspect_entry
from cardigan.data.reader import Reader
from cardigan.errors import CardiganError

CHUNK_SIZE = 16
"""Pictures that a process is given at a time."""
MAX_WORKERS = 64
STARTED, DONE = 1, 2

ProgressFn: TypeAlias = Callable[[int, int], None]
"""Hears how many pictures are done, of how many."""


def scan_images(
    reader: Reader, max_pixels: int, workers: int | None = None, on_progress: ProgressFn | None = None
) -> list[ImageStats | InspectionFailure]:
    """Return what every entry shows, in the source's order.

    `workers` processes look, one for each core if it is None, this one if it is 0, or where processes cannot be forked.
    Raises CardiganError, naming the pictures it can have been, if a process dies.
    """
    chunks = [range(start, min(start + CHUNK_SIZE, len(reader))) for start in range(0, len(reader), CHUNK_SIZE)]
    num_processes = min(_num_cores() if workers is None else workers, MAX_WORKERS, len(chunks))
    if sys.platform != "linux" or num_processes == 0 or (workers is None and num_processes == 1):
        scanned_chunks = ([inspect_entry(reader, index, max_pixels) for index in chunk] for chunk in chunks)
    else:
        scanned_chunks = _scan_in_processes(reader, max_pixels, chunks, num_processes)
    results: list[ImageStats | InspectionFailure] = []
    for part in scanned_chunks:
        results += part
        if on_progress is not None:
            on_progress(len(results), len(reader))
    return results


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _scan_in_processes(
    reader: Reader, max_pixels: int, chunks: Sequence[range], num_processes: int
) -> Iterator[list[ImageStats | InspectionFailure]]:
    progress = mmap.mmap(-1, len(reader))  # shared with the processes: which pictures are begun, which done
    pool = ProcessPoolExecutor(
        num_processes, multiprocessing.get_context("fork"), _init_worker, (reader, max_pixels, progress)
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: workers use none of them
            scanned_chunks = pool.map(_inspect_chunk, chunks)
        yield from scanned_chunks
    except BrokenProcessPool:
        raise _worker_died_error(reader, progress) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _worker_died_error(reader: Reader, progress: mmap.mmap) -> CardiganError:
    started_names = [reader.entry_name(index) for index, state in enumerate(progress[:]) if state == STARTED]
    where = f" at {' or '.join(started_names)}" if started_names else ""
    return CardiganError(
        f"A process that looked at the pictures of {reader.name} died{where}: either memory ran out, then give --num-workers 1, "
        "or a decoder crashed, then take the picture out of the source and check again."
    )


_worker_inputs: list[tuple[Reader, int, mmap.mmap]] = []
"""In a worker, what it was forked to work on: a reader cannot be sent."""


def _init_worker(reader: Reader, max_pixels: int, progress: mmap.mmap) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group, and the parent ends the others
    os.dup2(
        os.open(os.devnull, os.O_WRONLY), 2
    )  # libtiff complains there of every damaged file, which the looks tell better
    _worker_inputs.append((reader, max_pixels, progress))


def _inspect_chunk(chunk: range) -> list[ImageStats | InspectionFailure]:
    reader, max_pixels, progress = _worker_inputs[0]
    results = []
    for index in chunk:
        progress[index] = STARTED
        results.append(inspect_entry(reader, index, max_pixels))
        progress[index] = DONE
    return results
