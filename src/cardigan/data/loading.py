"""Pictures decoded by worker processes, ahead of who needs them, in the order asked for whatever the number of workers.

Knows entries and frames; not what the order means, nor what becomes of the pixels.
"""

import os
import re
import signal
import sys
import threading
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from torch.utils.data import DataLoader, Dataset

from cardigan.data.decoding import Frame, conversion, opened, pixels_of
from cardigan.data.reader import Reader, Unreadable
from cardigan.errors import CardiganError

FORKS = sys.platform == "linux"
AHEAD = 4
"""Parts that each worker keeps ready."""
MOST = 16
"""Workers, unless more are asked for."""
PART = 64
LOST = re.compile(r"DataLoader worker .*(exited unexpectedly|killed by signal)", re.DOTALL)
"""What PyTorch says of a worker that died."""


class WorkerLost(CardiganError):
    """A process that decodes pictures has died; what was trained until then is whole."""


@dataclass
class Part:
    """Decoded pictures, uint8 [n, height, width, channels], of the entries `indices`; what could not be read is in `bad` instead."""

    pixels: np.ndarray
    indices: list[int]
    bad: dict[int, str] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    labels: list[int] = field(default_factory=list)
    """Classes, where they come with the pictures."""
    refusal: str = ""
    """Why there is nothing here and nothing more will come: exceptions lose their words on the way between processes."""


class Decoding(Dataset[Part]):
    """What a worker does with the numbers it is sent: of entries, or, with `among`, of places in that list of entries."""

    def __init__(self, reader: Reader, frame: Frame, among: Sequence[int] | None) -> None:
        self.reader, self.frame, self.among = reader, frame, among

    def __getitem__(self, index: int) -> Part:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Part:
        frame = self.frame
        part = Part(np.empty((len(indices), frame.height, frame.width, frame.channels), np.uint8), [])
        try:
            for index in indices:
                self._add(part, index)
        except CardiganError as error:
            part.refusal = str(error)
        part.pixels = part.pixels[: len(part.indices)]
        return part

    def _add(self, part: Part, index: int) -> None:
        """Add one picture; in place of one that cannot be read, the next of the list that can."""
        among = self.among
        for entry in [index] if among is None else (among[(index + tried) % len(among)] for tried in range(len(among))):
            try:
                with opened(self.reader.read(entry), self.frame.max_pixels) as image:
                    part.notes[conversion(image)] += 1
                    part.pixels[len(part.indices)] = pixels_of(image, self.frame)
                part.indices.append(entry)
                return
            except Unreadable as error:
                part.bad[entry] = str(error)


def decoded_parts(
    reader: Reader, frame: Frame, order: Iterable[list[int]], workers: int | None, among: Sequence[int] | None = None
) -> Iterator[Part]:
    """Yield one part for each list of entry numbers in `order`, which may be endless.

    `workers` processes decode ahead, one for each core if it is None, this process if it is 0. With `among` the numbers are places in that list,
    and an unreadable picture's place is taken by the next readable one, so that parts are always full. Raises WorkerLost if a worker dies.
    """
    return loaded(Decoding(reader, frame, among), order, reader.name, processes(workers))


def loaded(dataset: Dataset[Part], order: Iterable[list[int]] | None, name: str, workers: int) -> Iterator[Part]:
    """Yield what the dataset makes of each list of numbers in `order`, or one part after another where it has an order of its own.

    `workers` processes work ahead; none, and this one does the work. Where a system cannot fork, which is how they come by the source, a thread
    takes their place. Raises WorkerLost if a process dies, and CardiganError where a part is a refusal.
    """
    ahead = _from_a_thread if workers and not FORKS else partial(_from_processes, name=name, workers=workers)
    for part in ahead(dataset, order):
        if part.refusal:
            raise CardiganError(part.refusal)
        part.notes.pop("", None)
        yield part


def _from_a_thread(dataset: Dataset[Part], order: Iterable[list[int]] | None) -> Iterator[Part]:
    work = iter(dataset) if order is None else (dataset.__getitems__(indices) for indices in order)  # pyright: ignore[reportAttributeAccessIssue]
    with ThreadPoolExecutor(1, "decoding") as thread:
        coming = deque(thread.submit(next, work, None) for _ in range(AHEAD))
        try:
            while (part := coming.popleft().result()) is not None:
                coming.append(thread.submit(next, work, None))
                yield part
        finally:
            thread.shutdown(cancel_futures=True)
            work.close()  # pyright: ignore[reportAttributeAccessIssue] - it is a generator


def _from_processes(dataset: Dataset[Part], order: Iterable[list[int]] | None, name: str, workers: int) -> Iterator[Part]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forking beside threads: workers use none of them; of more workers than cores: who asks gets them
        loader = DataLoader(
            dataset,
            batch_size=None if order is None else 1,
            batch_sampler=order,  # pyright: ignore[reportArgumentType] - any iterable of lists will do
            num_workers=workers,
            collate_fn=_as_it_is,  # pyright: ignore[reportArgumentType] - `__getitems__` returns one part, not a list
            prefetch_factor=AHEAD if workers else None,
            multiprocessing_context="fork" if workers else None,
            worker_init_fn=_leave_signals_to_the_parent,
        )
        with _quiet_about_children():
            parts = iter(loader)
    while True:
        try:
            yield next(parts)
        except StopIteration:
            return
        except RuntimeError as error:
            if not LOST.search(str(error)):
                raise
            raise WorkerLost(
                f"A process that decodes pictures of {name} died ({str(error).splitlines()[0].rstrip('.')}), most likely for lack of memory: "
                "set data.workers to a smaller number, or to 0."
            ) from error


@contextmanager
def _quiet_about_children() -> Iterator[None]:
    """Put back what happens when a child dies: PyTorch would raise in the midst of whatever is computed then, and a step must not be left half done.

    Whoever waits for the next part learns of it anyway.
    """
    number = getattr(signal, "SIGCHLD", None)
    if number is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = signal.getsignal(number)
    try:
        yield
    finally:
        signal.signal(number, usual)


def processes(workers: int | None) -> int:
    """Return how many processes decode: as many as asked for, else this process's share of the cores."""
    if not FORKS:
        return 0 if workers == 0 else 1
    shared = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(max(1, len(os.sched_getaffinity(0)) // shared), MOST) if workers is None else workers


def _as_it_is(part: Part) -> Part:
    return part


def _leave_signals_to_the_parent(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group, and the parent has something to save
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # how the parent ends a worker
    warnings.simplefilter("ignore")


def in_turn(count: int, size: int = PART) -> Iterator[list[int]]:
    """Yield 0..count-1 in lists of `size`."""
    for start in range(0, count, size):
        yield list(range(start, min(start + size, count)))


def too_many_bad(name: str, count: int, bad: dict[str, str]) -> CardiganError | None:
    """Return the refusal of a source of which more than one picture in a hundred cannot be read, None for others."""
    if len(bad) * 100 <= count:
        return None
    title, reason = next(iter(bad.items()))
    rest = "" if len(bad) == 1 else f", and {len(bad) - 1:,} more"
    return CardiganError(
        f"{len(bad):,} of the {count:,} pictures of {name} cannot be used ({title} {reason}{rest}), more than 1 in 100: "
        f"list them with `cardigan check {name}`, whose --write-clean leaves them out, and train on that."
    )
