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

from cardigan.data.checking.look import Look, Unread, looked
from cardigan.data.reader import Reader
from cardigan.errors import CardiganError

PART = 16
"""Pictures that a process is given at a time."""
MOST_WORKERS = 64
BEGUN, DONE = 1, 2

Told: TypeAlias = Callable[[int, int], None]
"""Hears how many pictures are done, of how many."""


def all_looks(reader: Reader, max_pixels: int, workers: int | None = None, told: Told | None = None) -> list[Look | Unread]:
    """Return what every entry shows, in the source's order.

    `workers` processes look, one for each core if it is None, this one if it is 0, or where processes cannot be forked.
    Raises CardiganError, naming the pictures it can have been, if a process dies.
    """
    parts = [range(start, min(start + PART, len(reader))) for start in range(0, len(reader), PART)]
    count = min(_cores() if workers is None else workers, MOST_WORKERS, len(parts))
    if sys.platform != "linux" or count == 0 or (workers is None and count == 1):
        several = ([looked(reader, index, max_pixels) for index in part] for part in parts)
    else:
        several = _forked(reader, max_pixels, parts, count)
    found: list[Look | Unread] = []
    for part in several:
        found += part
        if told is not None:
            told(len(found), len(reader))
    return found


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _forked(reader: Reader, max_pixels: int, parts: Sequence[range], count: int) -> Iterator[list[Look | Unread]]:
    marks = mmap.mmap(-1, len(reader))  # shared with the processes: which pictures are begun, which done
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("fork"), _begin, (reader, max_pixels, marks))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: workers use none of them
            several = pool.map(_looks, parts)
        yield from several
    except BrokenProcessPool:
        raise _died(reader, marks) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _died(reader: Reader, marks: mmap.mmap) -> CardiganError:
    begun = [reader.title(index) for index, mark in enumerate(marks[:]) if mark == BEGUN]
    where = f" at {' or '.join(begun)}" if begun else ""
    return CardiganError(
        f"A process that looked at the pictures of {reader.name} died{where}: either memory ran out, then give --workers 1, "
        "or a decoder crashed, then take the picture out of the source and check again."
    )


_given: list[tuple[Reader, int, mmap.mmap]] = []
"""In a worker, what it was forked to work on: a reader cannot be sent."""


def _begin(reader: Reader, max_pixels: int, marks: mmap.mmap) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group, and the parent ends the others
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff complains there of every damaged file, which the looks tell better
    _given.append((reader, max_pixels, marks))


def _looks(part: range) -> list[Look | Unread]:
    reader, max_pixels, marks = _given[0]
    found = []
    for index in part:
        marks[index] = BEGUN
        found.append(looked(reader, index, max_pixels))
        marks[index] = DONE
    return found
