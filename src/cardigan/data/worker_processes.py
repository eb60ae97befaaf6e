"""Forked processes that load chunks ahead of time, in order. A process that dies is noticed at once.

Each process has its own pair of pipes, and nobody else holds its ends: if it dies, its pipe ends, even in the middle of
a chunk. Knows nothing about images.
"""

import ctypes
import os
import signal
import sys
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import Queue
from typing import Generic, TypeVar

import torch

Chunk = TypeVar("Chunk")
PREFETCH_FACTOR = 4
"""Number of chunks that each process keeps ready."""
STOP_SECONDS = 1.0
"""How long a process may take to finish its chunk when it is stopped. Then it is killed."""
PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


class WorkerDied(Exception):
    """A process died. The message says how."""


@dataclass
class Worker:
    """One process, and this process's ends of its pipes."""

    process: BaseProcess
    tasks: Connection
    chunks: Connection


@dataclass(frozen=True)
class WorkerError:
    """An unexpected exception in a process, as text."""

    traceback: str


class WorkerProcesses(Generic[Chunk]):
    """Processes that load chunks. `load` turns the tasks of one process into its chunks."""

    def __init__(self, load: Callable[[Iterator[list[int]]], Iterator[Chunk]], num_workers: int) -> None:
        self._workers: list[Worker] = []
        for _ in range(num_workers):
            self._workers.append(_start_worker(load, self._workers))

    def chunks_of(self, index_lists: Iterable[list[int]]) -> Iterator[Chunk]:
        """Yield one chunk per list, in order. The processes take turns."""
        pending: deque[Worker] = deque()
        lists = iter(index_lists)
        turns = (worker for _ in iter(int, 1) for worker in self._workers)
        for worker in turns:
            indices = next(lists, None)
            if indices is not None:
                self._send(worker, indices)
                pending.append(worker)
            if indices is None or len(pending) == PREFETCH_FACTOR * len(self._workers):
                break
        while pending:
            worker = pending.popleft()
            chunk = self._receive(worker)
            indices = next(lists, None)
            if indices is not None:
                self._send(worker, indices)
                pending.append(worker)
            yield chunk

    def chunks(self) -> Iterator[Chunk]:
        """Yield the chunks of the only process, which needs no tasks."""
        (worker,) = self._workers
        while True:
            yield self._receive(worker)

    def stop(self) -> None:
        """Stop the processes. They see their pipes end."""
        for worker in self._workers:
            worker.tasks.close()
            worker.chunks.close()
        for worker in self._workers:
            worker.process.join(STOP_SECONDS)
            if worker.process.exitcode is None:
                worker.process.kill()
                worker.process.join()
            worker.process.close()
        self._workers.clear()

    def _send(self, worker: Worker, indices: list[int]) -> None:
        try:
            worker.tasks.send(indices)
        except OSError as error:
            raise WorkerDied(_cause_of_death(worker)) from error

    def _receive(self, worker: Worker) -> Chunk:
        try:
            message = worker.chunks.recv()
        except (EOFError, OSError) as error:
            raise WorkerDied(_cause_of_death(worker)) from error
        if isinstance(message, WorkerError):
            raise RuntimeError(f"a worker process failed:\n{message.traceback}")
        return message


def _cause_of_death(worker: Worker) -> str:
    worker.process.join(STOP_SECONDS)
    code = worker.process.exitcode
    if code is None:
        return "its pipe ended"
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def _start_worker(load: Callable[[Iterator[list[int]]], Iterator[Chunk]], others: list[Worker]) -> Worker:
    context = get_context("fork")
    task_receiver, task_sender = context.Pipe(duplex=False)
    chunk_receiver, chunk_sender = context.Pipe(duplex=False)
    inherited = [task_sender, chunk_receiver, *(end for other in others for end in (other.tasks, other.chunks))]
    process = context.Process(
        target=_run_worker, args=(load, task_receiver, chunk_sender, inherited, os.getpid()), daemon=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about fork with threads: the worker uses none of them
        process.start()
    task_receiver.close()
    chunk_sender.close()
    return Worker(process, task_sender, chunk_receiver)  # pyright: ignore[reportArgumentType]


def _run_worker(
    load: Callable[[Iterator[list[int]]], Iterator[Chunk]],
    tasks: Connection,
    chunks: Connection,
    inherited: list[Connection],
    parent: int,
) -> None:
    _die_with_parent(parent)
    for end in inherited:  # the parent's ends of this and the other pipes: they must end when the parent dies
        end.close()
    # A signal to the whole process group stops the parent, which saves and then stops the workers.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    ready: Queue[Chunk | WorkerError | None] = Queue(PREFETCH_FACTOR)
    sender = threading.Thread(target=_send_chunks, args=(ready, chunks), daemon=True)
    sender.start()
    try:
        for chunk in load(_received(tasks)):
            ready.put(chunk)
    except Exception:  # noqa: BLE001 - the parent raises it
        ready.put(WorkerError(traceback.format_exc()))
    ready.put(None)
    sender.join()
    os._exit(0)  # nothing of the parent's may run here: neither its exit handlers nor its locks


def _received(tasks: Connection) -> Iterator[list[int]]:
    with suppress(EOFError, OSError):
        while True:
            yield tasks.recv()


def _send_chunks(ready: "Queue[Chunk | WorkerError | None]", chunks: Connection) -> None:
    try:
        while (chunk := ready.get()) is not None:
            chunks.send(chunk)
    except OSError:  # the parent has stopped reading
        os._exit(0)


def _die_with_parent(parent: int) -> None:
    """Ask the system to kill this process when its parent ends. A killed rank's sockets would otherwise stay open."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the request
        os._exit(0)
