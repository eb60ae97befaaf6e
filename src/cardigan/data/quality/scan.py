"""The scan: the statistics of every image of a source, computed in worker processes.

Knows how the work is distributed, not what is computed.
"""

import mmap
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from cardigan.data.quality.image_stats import ImageStats, InspectionFailure, inspect_entry
from cardigan.data.reader import ProgressFn, Reader
from cardigan.errors import CardiganError

CHUNK_SIZE = 16
"""Images per task."""
MAX_WORKERS = 64
STARTED, DONE = 1, 2


def scan_images(
    reader: Reader, max_pixels: int, workers: int | None = None, on_progress: ProgressFn | None = None
) -> list[ImageStats | InspectionFailure]:
    """Return the statistics of every entry, in the order of the source.

    `workers` is the number of processes. Default: one per core; 0 uses this process, as do systems that cannot fork.
    Raises CardiganError with the names of the possible images if a process dies.
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
    progress = mmap.mmap(-1, len(reader))  # shared with the workers: which images are started and which are done
    pool = ProcessPoolExecutor(
        num_processes, multiprocessing.get_context("fork"), _init_worker, (reader, max_pixels, progress)
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # about fork with threads, which workers do not use
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
        f"A process that checked images of {reader.name} died{where}. If memory ran out, give --num-workers 1. "
        "If a decoder crashed, remove the image from the source. Then check again."
    )


_worker_inputs: list[tuple[Reader, int, mmap.mmap]] = []
"""The inputs of a worker process. A reader cannot be pickled, so workers get it by fork."""


def _init_worker(reader: Reader, max_pixels: int, progress: mmap.mmap) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent stops the workers
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff prints about damaged files; the results report them better
    _worker_inputs.append((reader, max_pixels, progress))


def _inspect_chunk(chunk: range) -> list[ImageStats | InspectionFailure]:
    reader, max_pixels, progress = _worker_inputs[0]
    results = []
    for index in chunk:
        progress[index] = STARTED
        results.append(inspect_entry(reader, index, max_pixels))
        progress[index] = DONE
    return results
