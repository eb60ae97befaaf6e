"""Pictures for everybody who asks, by one worker: a bounded queue, and batches filled with rows of several requests.

Knows neither HTTP nor how a picture is computed.
"""

import math
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import torch

from cardigan.serve.asking import Order
from cardigan.serve.model import Served
from cardigan.shapes import Labels, Pixels

ENCODERS = 2
PATIENCE = 0.15
"""For this part of a batch's time, those who have just been answered are given to ask again, before a batch is drawn that is not full."""


class Full(Exception):
    """Too many pictures wait already."""

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self.seconds = seconds
        """After which so many will be drawn as wait now."""


class Closed(Exception):
    """The server is stopping."""


@dataclass(eq=False)
class Job:
    """A request on its way. `finish` turns its pictures into an answer, in a thread where it holds up no batch."""

    order: Order
    finish: Callable[[Pixels, Labels | None], bytes]
    future: "Future[bytes]" = field(default_factory=Future)
    drawn: int = 0
    parts: list[tuple[Pixels, Labels | None]] = field(default_factory=list)

    @property
    def left(self) -> int:
        return self.order.count - self.drawn


@dataclass(frozen=True)
class Observer:
    """Who is told of what happens, for the numbers."""

    batch: Callable[[int, float], None]
    """Pictures in it that were wanted, and seconds."""
    cancelled: Callable[[], None]


class Batching:
    """The queue and its worker, which alone touches the model."""

    def __init__(self, served: Served, most: int, observer: Observer) -> None:
        self.served, self.most, self._observer = served, most, observer
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._waiting = self._encoding = 0
        self._expected = 0
        self._handed_out = 0.0
        self._is_closed = False
        self._began: float | None = None
        self._batch_seconds = self._warm()
        self._encoders = ThreadPoolExecutor(ENCODERS, thread_name_prefix="encoder")
        self._worker = threading.Thread(target=self._work, name="drawing", daemon=True)
        self._worker.start()

    @property
    def waiting(self) -> int:
        """Pictures that are asked for and not drawn yet, or drawn and not turned into an answer yet: what is bounded."""
        return self._waiting + self._encoding

    @property
    def pictures_per_second(self) -> float:
        """How many can be drawn, by the last batches."""
        return self.served.batch / self._batch_seconds

    def stuck_seconds(self) -> float:
        """Return for how long the batch has been drawn that is drawn now; 0 between batches."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    @property
    def is_alive(self) -> bool:
        return self._worker.is_alive() and not self._is_closed

    def submit(self, order: Order, finish: Callable[[Pixels, Labels | None], bytes]) -> Job:
        """Return a job in the queue; raises Full or Closed."""
        job = Job(order, finish)
        with self._changed:
            if self._is_closed:
                raise Closed
            if self.waiting + order.count > self.most:
                raise Full(max(1, math.ceil(self.waiting / self.pictures_per_second)))
            self._jobs.append(job)
            self._waiting += order.count
            self._changed.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Draw no more of a job whose asker has gone."""
        if job.future.cancel():
            self._observer.cancelled()
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
                self._waiting -= job.left

    def close(self) -> None:
        """Stop; jobs that still wait are told that the server is closed."""
        with self._changed:
            self._is_closed = True
            left, self._waiting = list(self._jobs), 0
            self._jobs.clear()
            self._changed.notify()
        for job in left:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(Closed())
        self._worker.join(self._batch_seconds * 10 + 5)
        self._encoders.shutdown(wait=False, cancel_futures=True)

    def _warm(self) -> float:
        """Draw once for the memory and once for the clock: what cannot be drawn shows before anybody asks."""
        z = torch.zeros(self.served.batch, self.served.config.latent.size)
        labels = torch.zeros(len(z), dtype=torch.long) if self.served.spec.classes else None
        self.served.draw(z, labels)
        began = time.monotonic()
        self.served.draw(z, labels)
        return max(time.monotonic() - began, 1e-4)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._is_closed:
                    self._changed.wait()
                if self._is_closed:
                    return
                self._wait_for_company()
                parts = self._taken()
            if parts:
                self._draw(parts)

    def _wait_for_company(self) -> None:
        """Give those who were answered a moment ago the time to ask again: who asks over and over would else fill every second batch only."""
        deadline = self._handed_out + PATIENCE * self._batch_seconds
        while self._waiting < self._expected and not self._is_closed and (left := deadline - time.monotonic()) > 0:
            self._changed.wait(left)

    def _taken(self) -> list[tuple[Job, int, int]]:
        """Return the rows of the next batch. First come, first drawn; but who has had a whole batch goes to the end, before the next."""
        parts, free = [], self.served.batch
        while self._jobs and free:
            job = self._jobs.popleft()
            count = min(free, job.left)
            parts.append((job, job.drawn, job.drawn + count))
            job.drawn += count
            free -= count
            if job.left:
                (self._jobs.append if count == self.served.batch else self._jobs.appendleft)(job)
        self._waiting -= self.served.batch - free
        return parts

    def _draw(self, parts: list[tuple[Job, int, int]]) -> None:
        """Draw a batch and hand it out. Whatever fails here is told to those who wait for it, and is not the end of the worker."""
        self._began = time.monotonic()
        try:
            rows = [job.order.rows(start, stop, self.served) for job, start, stop in parts]
            labels = torch.cat([part for _, part in rows if part is not None]) if self.served.spec.classes else None
            pixels = self.served.draw(torch.cat([z for z, _ in rows]), labels)
            self._time(len(pixels), time.monotonic() - self._began)
            self._hand_out(parts, pixels, [part for _, part in rows])
        except Exception as error:  # noqa: BLE001 - memory may have run out, or a device be gone
            traceback.print_exception(error, file=sys.stderr)
            self._fail([job for job, _, _ in parts], error)
        finally:
            self._began = None

    def _time(self, count: int, seconds: float) -> None:
        whole = seconds * self.served.batch / self.served.size(count)
        self._batch_seconds += 0.2 * (whole - self._batch_seconds)
        self._observer.batch(count, seconds)

    def _hand_out(self, parts: list[tuple[Job, int, int]], pixels: Pixels, labels: Sequence[torch.Tensor | None]) -> None:
        answered = 0
        shares = pixels.split([stop - start for _, start, stop in parts])
        for (job, _, stop), mine, classes in zip(parts, shares, labels, strict=True):
            job.parts.append((mine, classes))
            if stop == job.order.count:
                answered += job.order.count
                with self._changed:
                    self._encoding += job.order.count
                self._encoders.submit(self._finish, job)
        self._expected, self._handed_out = min(self.served.batch, self._waiting + answered), time.monotonic()

    def _fail(self, jobs: list[Job], error: Exception) -> None:
        for job in jobs:
            with self._changed:
                if job in self._jobs:
                    self._jobs.remove(job)
                    self._waiting -= job.left
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(error)

    def _finish(self, job: Job) -> None:
        """Turn the pictures of a job into its answer; they count as waiting until just before it is told, since who has it may ask again at once."""
        tell: Callable[[], None] | None = None
        try:
            if job.future.set_running_or_notify_cancel():
                pixels, labels = torch.cat([mine for mine, _ in job.parts]), [part for _, part in job.parts if part is not None]
                tell = partial(job.future.set_result, job.finish(pixels, torch.cat(labels) if labels else None))
        except Exception as error:  # noqa: BLE001 - whoever waits is told, whatever it was
            tell = partial(job.future.set_exception, error)
        finally:
            with self._changed:
                self._encoding -= job.order.count
        if tell is not None:
            tell()
