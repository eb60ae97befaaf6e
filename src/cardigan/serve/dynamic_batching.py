"""Dynamic batching: a bounded queue, and one worker that fills batches with rows of several requests.

Independent of HTTP and of the model's backend.
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

from cardigan.serve.sample_request import SampleRequest
from cardigan.serve.served_model import ServedModel
from cardigan.shapes import Labels, Pixels

NUM_ENCODER_THREADS = 2
REFILL_WAIT_FRACTION = 0.15
"""Fraction of a batch's time to wait for more requests before running a partial batch."""


class QueueFull(Exception):
    """The queue has no room for the request."""

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__(retry_after_seconds)
        self.retry_after_seconds = retry_after_seconds
        """Estimated time to generate the images that are queued now."""


class QueueClosed(Exception):
    """The server is stopping."""


@dataclass(eq=False)
class Job:
    """A queued request. `encode` turns its images into the response content, in a thread outside the worker."""

    request: SampleRequest
    encode: Callable[[Pixels, Labels | None], bytes]
    future: "Future[bytes]" = field(default_factory=Future)
    num_generated: int = 0
    outputs: list[tuple[Pixels, Labels | None]] = field(default_factory=list)

    @property
    def num_remaining(self) -> int:
        return self.request.count - self.num_generated


@dataclass(frozen=True)
class BatchHooks:
    """Callbacks for metrics."""

    on_batch: Callable[[int, float], None]
    """Called with the number of requested images in the batch (without padding) and its seconds."""
    on_cancelled: Callable[[], None]


class DynamicBatcher:
    """The queue and its worker thread, the only one that uses the model."""

    def __init__(self, model: ServedModel, max_queued_images: int, hooks: BatchHooks) -> None:
        self.model, self.max_queued_images, self._hooks = model, max_queued_images, hooks
        self._jobs: deque[Job] = deque()
        self._condition = threading.Condition()
        self._num_waiting = self._num_encoding = 0
        self._num_expected = 0
        self._last_batch_at = 0.0
        self._is_closed = False
        self._batch_started_at: float | None = None
        self._batch_seconds = self._warm_up()
        self._encoder_pool = ThreadPoolExecutor(NUM_ENCODER_THREADS, thread_name_prefix="encoder")
        self._worker = threading.Thread(target=self._run, name="generate", daemon=True)
        self._worker.start()

    @property
    def num_queued(self) -> int:
        """Images that wait to be generated or encoded, at most `max_queued_images`."""
        return self._num_waiting + self._num_encoding

    @property
    def images_per_second(self) -> float:
        """Throughput with full batches, estimated from recent batches."""
        return self.model.batch_size / self._batch_seconds

    def stalled_seconds(self) -> float:
        """Return how long the current batch has been running; 0 between batches."""
        started_at = self._batch_started_at
        return 0.0 if started_at is None else time.monotonic() - started_at

    @property
    def is_alive(self) -> bool:
        return self._worker.is_alive() and not self._is_closed

    def submit(self, request: SampleRequest, encode: Callable[[Pixels, Labels | None], bytes]) -> Job:
        """Add a job to the queue and return it; raises QueueFull or QueueClosed."""
        job = Job(request, encode)
        with self._condition:
            if self._is_closed:
                raise QueueClosed
            if self.num_queued + request.count > self.max_queued_images:
                raise QueueFull(max(1, math.ceil(self.num_queued / self.images_per_second)))
            self._jobs.append(job)
            self._num_waiting += request.count
            self._condition.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Cancel a job: its remaining images are not generated."""
        if job.future.cancel():
            self._hooks.on_cancelled()
        with self._condition:
            if job in self._jobs:
                self._jobs.remove(job)
                self._num_waiting -= job.num_remaining

    def close(self) -> None:
        """Stop the worker. Waiting jobs fail with QueueClosed."""
        with self._condition:
            self._is_closed = True
            unfinished, self._num_waiting = list(self._jobs), 0
            self._jobs.clear()
            self._condition.notify()
        for job in unfinished:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(QueueClosed())
        self._worker.join(self._batch_seconds * 10 + 5)
        self._encoder_pool.shutdown(wait=False, cancel_futures=True)

    def _warm_up(self) -> float:
        """Run two batches and return the seconds of the second. A model that fails does so before the first request."""
        z = torch.zeros(self.model.batch_size, self.model.config.latent.size)
        labels = torch.zeros(len(z), dtype=torch.long) if self.model.spec.num_classes else None
        self.model.generate(z, labels)
        started_at = time.monotonic()
        self.model.generate(z, labels)
        return max(time.monotonic() - started_at, 1e-4)

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._jobs and not self._is_closed:
                    self._condition.wait()
                if self._is_closed:
                    return
                self._wait_for_refill()
                slices = self._next_batch()
            if slices:
                self._generate(slices)

    def _wait_for_refill(self) -> None:
        """Wait briefly for clients that send their next request right after a response.

        Without this, such clients would fill only every second batch.
        """
        deadline = self._last_batch_at + REFILL_WAIT_FRACTION * self._batch_seconds
        while (
            self._num_waiting < self._num_expected
            and not self._is_closed
            and (remaining_seconds := deadline - time.monotonic()) > 0
        ):
            self._condition.wait(remaining_seconds)

    def _next_batch(self) -> list[tuple[Job, int, int]]:
        """Return the rows of the next batch, in order of arrival.

        A job that has filled a whole batch moves to the end of the queue.
        """
        slices, num_free = [], self.model.batch_size
        while self._jobs and num_free:
            job = self._jobs.popleft()
            count = min(num_free, job.num_remaining)
            slices.append((job, job.num_generated, job.num_generated + count))
            job.num_generated += count
            num_free -= count
            if job.num_remaining:
                (self._jobs.append if count == self.model.batch_size else self._jobs.appendleft)(job)
        self._num_waiting -= self.model.batch_size - num_free
        return slices

    def _generate(self, slices: list[tuple[Job, int, int]]) -> None:
        """Generate a batch and distribute it. On an exception the batch's jobs fail and the worker continues."""
        self._batch_started_at = time.monotonic()
        try:
            rows = [job.request.latents_and_labels(start, stop, self.model) for job, start, stop in slices]
            labels = torch.cat([part for _, part in rows if part is not None]) if self.model.spec.num_classes else None
            pixels = self.model.generate(torch.cat([z for z, _ in rows]), labels)
            self._record_batch_time(len(pixels), time.monotonic() - self._batch_started_at)
            self._distribute(slices, pixels, [part for _, part in rows])
        except Exception as error:  # noqa: BLE001 - for example out of memory, or a lost device
            traceback.print_exception(error, file=sys.stderr)
            self._fail([job for job, _, _ in slices], error)
        finally:
            self._batch_started_at = None

    def _record_batch_time(self, count: int, seconds: float) -> None:
        full_batch_seconds = seconds * self.model.batch_size / self.model.padded_size(count)
        self._batch_seconds += 0.2 * (full_batch_seconds - self._batch_seconds)
        self._hooks.on_batch(count, seconds)

    def _distribute(
        self, slices: list[tuple[Job, int, int]], pixels: Pixels, labels: Sequence[torch.Tensor | None]
    ) -> None:
        num_finished = 0
        pixels_by_job = pixels.split([stop - start for _, start, stop in slices])
        for (job, _, stop), job_pixels, job_labels in zip(slices, pixels_by_job, labels, strict=True):
            job.outputs.append((job_pixels, job_labels))
            if stop == job.request.count:
                num_finished += job.request.count
                with self._condition:
                    self._num_encoding += job.request.count
                self._encoder_pool.submit(self._encode, job)
        self._num_expected, self._last_batch_at = (
            min(self.model.batch_size, self._num_waiting + num_finished),
            time.monotonic(),
        )

    def _fail(self, jobs: list[Job], error: Exception) -> None:
        for job in jobs:
            with self._condition:
                if job in self._jobs:
                    self._jobs.remove(job)
                    self._num_waiting -= job.num_remaining
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(error)

    def _encode(self, job: Job) -> None:
        """Encode a job's images and resolve its future.

        The images leave the queue count just before, because the client may send its next request at once.
        """
        resolve: Callable[[], None] | None = None
        try:
            if job.future.set_running_or_notify_cancel():
                pixels, labels = (
                    torch.cat([job_pixels for job_pixels, _ in job.outputs]),
                    [job_labels for _, job_labels in job.outputs if job_labels is not None],
                )
                resolve = partial(job.future.set_result, job.encode(pixels, torch.cat(labels) if labels else None))
        except Exception as error:  # noqa: BLE001 - the job's future carries any exception
            resolve = partial(job.future.set_exception, error)
        finally:
            with self._condition:
                self._num_encoding -= job.request.count
        if resolve is not None:
            resolve()
