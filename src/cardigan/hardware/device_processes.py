"""Processes of this machine, each with its own GPU or its share of the CPU cores. They compute tasks for this process.

Does not know what is computed.
"""

import os
import queue
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, TypeAlias

import torch

from cardigan.errors import CardiganError, first_line
from cardigan.hardware.device import find_device
from cardigan.hardware.out_of_memory import is_out_of_memory

ComputeFn: TypeAlias = Callable[[Any], Any]
"""Computes the result of a task. Both are sent between processes: plain values and arrays, no tensors, whose shared
memory may be small in a container."""
BuildFn: TypeAlias = Callable[[torch.device], ComputeFn]
"""Builds a compute function in a process, on its device. Sent to the process, so defined at the top of a module."""

TASKS_PER_PROCESS = 2
"""Tasks that are sent ahead of the results that the caller takes."""
STOP_SECONDS = 1.0
"""How long to wait for the exit code of a process whose pipe has ended."""


class ProcessLost(Exception):
    """A process died or failed. The message names it."""


def process_devices(device: str, num_processes: int) -> list[str]:
    """Return the device of each process: the first GPUs, or `cpu` for all if there is none or `device` is cpu.

    Raises CardiganError for more processes than GPUs, for one certain GPU, and for a missing device.
    """
    if ":" in device:
        raise CardiganError(
            f"--devices {num_processes} uses the first {num_processes} GPUs, but --device is {device!r}: "
            "use --device cuda, or leave one of them out."
        )
    if device in {"auto", "cuda"} and torch.cuda.is_available():
        check_num_gpus(num_processes, torch.cuda.device_count())
        return [f"cuda:{number}" for number in range(num_processes)]
    if find_device(device).type == "cpu":
        return ["cpu"] * num_processes
    check_num_gpus(num_processes, 1)
    return [device]


def check_num_gpus(num_processes: int, num_gpus: int) -> None:
    """Raise CardiganError for more processes than GPUs."""
    if num_processes > num_gpus:
        raise CardiganError(
            f"--devices is {num_processes} but this machine has {num_gpus} GPU{'' if num_gpus == 1 else 's'}: "
            "give that many or fewer."
        )


class DeviceProcesses:
    """Processes that compute tasks, one per name in `devices`. A context manager, which stops them at its end.

    `builders` are the functions that the processes can compute, by name. Each is built on first use.
    """

    def __init__(self, devices: Sequence[str], builders: Mapping[str, BuildFn]) -> None:
        num_threads = None if "OMP_NUM_THREADS" in os.environ else max(1, torch.get_num_threads() // len(devices))
        self._processes: list[DeviceProcess] = []
        self._idle: queue.SimpleQueue[DeviceProcess] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(len(devices))
        """One thread per process: it sends a task and waits for the result."""
        try:
            for number, device in enumerate(devices, 1):
                title = f"Process {number} of {len(devices)} ({device})"
                self._processes.append(_start_process(title, device, num_threads))
            for process in self._processes:  # after all have started: a large message waits until it is read
                process.send(dict(builders))
                self._idle.put(process)
        except BaseException as error:
            self.stop()
            if isinstance(error, ProcessLost):
                raise CardiganError(str(error)) from error
            raise

    @property
    def process_ids(self) -> list[int]:
        return [process.process.pid or 0 for process in self._processes]

    def map(self, name: str, tasks: Iterable[Any]) -> Iterator[Any]:
        """Yield the result of each task, in the order of the tasks, which are taken as the results are.

        Raises the CardiganError of a task, and ProcessLost, which becomes a CardiganError at the end of the context.
        """
        pending: deque[Future[Any]] = deque()
        try:
            for task in tasks:
                pending.append(self._threads.submit(self._compute, name, task))
                if len(pending) == TASKS_PER_PROCESS * len(self._processes):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    def _compute(self, name: str, task: Any) -> Any:
        process = self._idle.get()
        try:
            return process.compute(name, task)
        finally:
            self._idle.put(process)

    def stop(self) -> None:
        """Stop the processes at once."""
        for process in self._processes:
            process.process.kill()
        self._threads.shutdown(cancel_futures=True)  # the threads see the pipes end
        for process in self._processes:
            process.pipe.close()
            process.process.join()
            process.process.close()
        self._processes.clear()

    def __enter__(self) -> "DeviceProcesses":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()
        if isinstance(error, ProcessLost):  # not before: a caller that goes on after a CardiganError must not do so
            raise CardiganError(str(error)) from error


@dataclass(frozen=True, eq=False)
class DeviceProcess:
    """One process, and this process's end of its pipe."""

    title: str
    """Its name in messages."""
    process: BaseProcess
    pipe: Connection

    def compute(self, name: str, task: Any) -> Any:
        """Return the result of a task. Raises its CardiganError, or ProcessLost for another error or if it dies."""
        self.send((name, task))
        try:
            result = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise self._death() from error
        if isinstance(result, _UserError):
            raise CardiganError(result.message)
        if isinstance(result, _Failure):
            error = ProcessLost(f"{self.title} {result.message}")
            error.add_note(result.traceback)
            raise error
        return result

    def send(self, message: Any) -> None:
        try:
            self.pipe.send(message)
        except OSError as error:
            raise self._death() from error

    def _death(self) -> ProcessLost:
        self.process.join(STOP_SECONDS)
        code = self.process.exitcode
        cause = f"was killed (signal {-code})" if code is not None and code < 0 else f"ended with exit code {code}"
        return ProcessLost(
            f"{self.title} {cause}, so the others were stopped: check the memory of this machine, or use fewer "
            "--devices."
        )


@dataclass(frozen=True)
class _UserError:
    """A CardiganError in a process."""

    message: str


@dataclass(frozen=True)
class _Failure:
    """Another error in a process."""

    message: str
    traceback: str


def _start_process(title: str, device: str, num_threads: int | None) -> DeviceProcess:
    context = get_context("spawn")  # a forked process could use neither a GPU nor this process's threads
    pipe, child_pipe = context.Pipe()
    process = context.Process(target=_run_process, args=(child_pipe, device, num_threads), daemon=True)
    with _signals_blocked():
        process.start()
    child_pipe.close()
    return DeviceProcess(title, process, pipe)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block Ctrl-C and SIGTERM inside the block. A process that is started there never gets them.

    A signal to the whole process group then stops only this process, which stops the others.
    """
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # starting it inside the block would unblock the signals again
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _run_process(pipe: Connection, device: str, num_threads: int | None) -> None:
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    try:
        builders: dict[str, BuildFn] = pipe.recv()
        functions: dict[str, ComputeFn] = {}
        while True:
            name, task = pipe.recv()
            pipe.send(_result(name, task, functions, builders, device))
    except (EOFError, OSError):
        pass  # the parent has ended


def _result(name: str, task: Any, functions: dict[str, ComputeFn], builders: dict[str, BuildFn], device: str) -> object:
    """Return the result of a task or its failure. Builds the function on first use."""
    try:
        if name not in functions:
            functions[name] = builders[name](_open_device(device))
        return functions[name](task)
    except CardiganError as error:
        return _UserError(str(error))
    except Exception as error:  # noqa: BLE001 - the parent raises it
        cause = f"has no memory left ({first_line(error)}): use fewer --devices."
        if not is_out_of_memory(error):
            cause = f"failed ({type(error).__name__}: {first_line(error)}): try without --devices."
        return _Failure(cause, traceback.format_exc())


def _open_device(name: str) -> torch.device:
    device = find_device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def _exit_with_parent() -> None:
    """End this process when its parent ends, in whatever way and whatever this process computes."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
