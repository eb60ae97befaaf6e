"""The processes of one run: the only file that knows `torch.distributed`.

Distribution is plain modules, all backwards, then one flat all-reduce of the gradients; no wrapper. Does not know
what is trained.
"""

import atexit
import itertools
import json
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from queue import Empty, Queue
from typing import Any, Literal, TypeVar

import torch
from torch import distributed
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from cardigan.checks import nearest_divisor
from cardigan.config import Config
from cardigan.errors import CardiganError, CollectiveError, first_line
from cardigan.training.agreement import Facts, disagreement
from cardigan.training.heartbeat import Heartbeat, announce

Result = TypeVar("Result")
COLLECTIVE_TIMEOUT = timedelta(days=1)
"""One process may decode a million images while the others wait. The heartbeat notices a process that is lost."""
JOIN_SECONDS = 60.0
"""How much longer than `process_timeout_seconds` processes wait for each other at the start."""
POLL = timedelta(seconds=0.5)
"""How often a waiting process looks whether another one is lost."""
PROCESS_LOST = "Everything up to the last checkpoint is saved: the same command with --resume continues from there."


class ProcessLost(CardiganError):
    """Another process of this run is gone."""


@dataclass(frozen=True)
class ProcessGroup:
    """This process's rank among the processes of its run."""

    rank: int = 0
    world_size: int = 1
    all_reduce_dtype: Literal["fp32", "bf16"] = "fp32"
    """The type in which gradients are sent and summed."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def local_slice(self, batch_size: int) -> slice:
        """Return this process's part of a global batch."""
        size = batch_size // self.world_size
        return slice(self.rank * size, (self.rank + 1) * size)

    def all_reduce_mean(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the tensors averaged over the processes, in one flat all-reduce."""
        return self.all_reduce_mean_async(tensors).results()

    def all_reduce_mean_async(self, tensors: Sequence[torch.Tensor]) -> "AsyncMean":
        """Begin to average the tensors over the processes, in one flat all-reduce, and return at once."""
        if self.world_size == 1:
            return AsyncMean(tensors, None, None)
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors]) / self.world_size
        buffer = flat.to(torch.bfloat16) if self.all_reduce_dtype == "bf16" else flat
        with _collective_errors():
            return AsyncMean(tensors, buffer, distributed.all_reduce(buffer, async_op=True))

    def all_reduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over the processes."""
        total = tensor.clone()
        if self.world_size > 1:
            _all_reduce(total)
        return total

    def all_reduce_max(self, value: int) -> int:
        """Return the largest of the processes' values; waits for all of them."""
        return self.all_reduce_max_async(value).results()[0]

    def all_reduce_max_async(self, *values: int) -> "AsyncMax":
        """Begin to find the largest of the processes' values, one by one, and return at once."""
        buffer = torch.tensor(values)
        if self.world_size == 1:
            return AsyncMax(buffer, None)
        with _collective_errors():
            return AsyncMax(
                buffer, distributed.all_reduce(buffer, op=distributed.ReduceOp.MAX, group=_gloo_group(), async_op=True)
            )

    def pause(self) -> AbstractContextManager[Any]:
        """Return a context for work of one process for which the others wait, such as saving."""
        return _SESSIONS[0].heartbeat.pause() if _SESSIONS else nullcontext()

    def check_agreement(self, facts: Facts) -> None:
        """Raise CardiganError, in every process, if one of them has other facts than the main one."""
        if self.world_size > 1:
            _SESSIONS[0].check_agreement(facts)

    def on_main_process(self, function: Callable[[], Result]) -> Result | None:
        """Call a function in the main process and return its result, None in the others. If it fails, all fail."""
        result, message = None, ""
        if self.is_main:
            try:
                result = function()
            except CardiganError as error:
                message = str(error)
        message = self.broadcast(message)
        if message:
            raise CollectiveError(message)
        return result

    def broadcast(self, text: str) -> str:
        """Return the main process's text in every process."""
        if self.world_size == 1:
            return text
        content = text.encode()
        size = torch.tensor([len(content)])
        _wait(distributed.broadcast(size, src=0, group=_gloo_group(), async_op=True))
        buffer = torch.zeros(int(size), dtype=torch.uint8)
        if self.is_main:
            buffer.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8)) if content else None
        _wait(distributed.broadcast(buffer, src=0, group=_gloo_group(), async_op=True))
        return bytes(buffer.tolist()).decode()

    def barrier(self) -> None:
        """Return when every process has come here."""
        self.all_reduce_max(0)

    def check_same_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Raise CardiganError, in every process, naming the first tensor whose bits differ from the main process's."""
        if self.world_size > 1:
            sums = {name: checksum(tensor).tolist() for name, tensor in tensors.items()}
            self.check_agreement({f"the checksum of {name}": f"{a:x}.{b:x}" for name, (a, b) in sums.items()})

    def check_replicas(self, tensors: Mapping[str, torch.Tensor], images_seen: int) -> None:
        """Raise CardiganError, in every process, naming the first tensor whose bits are not the same in all of them."""
        if self.world_size == 1:
            return
        sums = torch.stack([checksum(tensor) for tensor in tensors.values()]).cpu()
        lowest, highest = sums.clone(), sums
        _all_reduce(lowest, distributed.ReduceOp.MIN, _gloo_group())
        _all_reduce(highest, distributed.ReduceOp.MAX, _gloo_group())
        differing = [
            name for name, same in zip(tensors, (lowest == highest).all(dim=1).tolist(), strict=True) if not same
        ]
        if differing:
            raise CollectiveError(
                f"The {self.world_size} processes no longer agree after {images_seen:,} images: {differing[0]} is the "
                f"first of {len(differing)} tensors that differ. This state was not saved; the same command with "
                "--resume continues from the last checkpoint. "
                "If it happens again, a device or the network between them computes wrong results."
            )

    @contextmanager
    def membership(self) -> Iterator[None]:
        """Leave the group after the block. If this process alone fails in it, the others end too and say why."""
        try:
            yield
        except (CollectiveError, ProcessLost):
            self.destroy()
            raise
        except BaseException as error:
            self.destroy(first_line(error, 300))
            raise
        self.destroy()

    def destroy(self, reason: str = "") -> None:
        """Leave the group. With a reason, such as an error of this process alone, the others end too and say it."""
        if self.world_size == 1 or not distributed.is_initialized():
            return
        session = _SESSIONS.pop() if _SESSIONS else None
        if session is not None:
            session.heartbeat.leave(reason)
            if session.is_broken or reason:
                atexit.register(_exit_at_once)
                return
        time.sleep(0.1)  # gloo's threads release their last tensors a moment later; else the process aborts
        distributed.destroy_process_group()
        _GLOO_GROUPS.clear()


@dataclass
class AsyncMean:
    """Tensors whose averages are on their way."""

    tensors: Sequence[torch.Tensor]
    buffer: torch.Tensor | None
    work: distributed.Work | None

    def results(self) -> list[torch.Tensor]:
        if self.buffer is None:
            return list(self.tensors)
        _wait(self.work, is_async=self.buffer.is_cuda)
        means = self.buffer.to(self.tensors[0].dtype).split([tensor.numel() for tensor in self.tensors])
        return [mean.view_as(tensor) for mean, tensor in zip(means, self.tensors, strict=True)]


@dataclass
class AsyncMax:
    """A question to all processes that is on its way."""

    buffer: torch.Tensor
    work: distributed.Work | None

    def results(self) -> list[int]:
        if self.work is not None:
            _wait(self.work)
        return self.buffer.tolist()


def world_size() -> int:
    """Return how many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return which of them this is, the main one being 0."""
    return int(os.environ.get("RANK", "0"))


def job_id() -> str:
    """Return torchrun's name for the job that this process belongs to (--rdzv-id); "" without torchrun."""
    return os.environ.get("TORCHELASTIC_RUN_ID", "")


def is_restarted() -> bool:
    """Return whether torchrun has restarted this process after a failure (--max-restarts)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def check_world_size(config: Config, num_processes: int) -> None:
    """Raise CardiganError if a batch cannot be divided among this many processes."""
    divisor = num_processes * config.gradient_accumulation * config.pac
    if config.batch_size % divisor:
        factors = "".join(
            f" x {factor} ({name})"
            for name, factor in (("gradient_accumulation", config.gradient_accumulation), ("pac", config.pac))
            if factor > 1
        )
        raise CollectiveError(
            f"batch_size is {config.batch_size} over {num_processes} processes{factors}: "
            f"expected a multiple of {divisor}."
        )
    group_size, num_logits = config.discriminator.minibatch_stddev, config.batch_size // divisor
    if group_size and num_logits % group_size:
        raise CollectiveError(
            f"discriminator.minibatch_stddev is {group_size}, but each process computes {num_logits} logits at a time: "
            f"set it to {nearest_divisor(group_size, num_logits, minimum=2)}, or start fewer processes."
        )


def init_process_group(config: Config, device: torch.device) -> ProcessGroup:
    """Return this process's group. Under `torchrun` it joins the others: gloo on CPUs; NCCL on GPUs, and gloo for
    messages."""
    if world_size() > 1 and not distributed.is_initialized():
        _SESSIONS.append(_join(device, config.process_timeout_seconds))
    return ProcessGroup(rank(), world_size(), config.all_reduce_dtype)


@dataclass
class Session:
    """What this process shares with the others while a run lasts: the store and the signs of life."""

    store: Store
    heartbeat: Heartbeat
    num_checks: int = 0
    is_broken: bool = False
    """Whether a process was lost. Its unfinished collectives cannot be ended, so the group cannot be closed."""

    def check_agreement(self, facts: Facts) -> None:
        """Compare facts: every process sends its own to the main one, which answers."""
        self.num_checks += 1
        answer = _in_thread(lambda: self._exchange(facts, f"facts/{self.num_checks}"), self.raise_if_lost)
        if answer:
            raise CollectiveError(answer)

    def _exchange(self, facts: Facts, key: str) -> str:
        store, this_rank, hosts = self.store, self.heartbeat.rank, self.heartbeat.hosts
        store.set(f"{key}/{this_rank}", json.dumps(dict(facts)))
        if this_rank == 0:
            keys = [f"{key}/{rank}" for rank in range(len(hosts))]
            _appear(store, keys)
            store.set(f"{key}/answer", disagreement([json.loads(store.get(each)) for each in keys], hosts))
        _appear(store, [f"{key}/answer"])
        answer = store.get(f"{key}/answer").decode()
        if answer:
            store.set(f"{key}/read/{this_rank}", "")
            if this_rank == 0:  # it may hold the store, which ends with it
                _appear(store, [f"{key}/read/{rank}" for rank in range(len(hosts))], 2)
        return answer

    def raise_if_lost(self) -> None:
        if self.heartbeat.lost:
            self.is_broken = True
            raise ProcessLost(f"{self.heartbeat.lost} {PROCESS_LOST}")


_SESSIONS: list[Session] = []
"""This process's session, if it has one: a process belongs to one group at a time, as in torch.distributed."""


_NUM_JOINS = itertools.count()
"""Every group of this process has keys of its own in the store."""


def _join(device: torch.device, timeout_seconds: float) -> Session:
    """Join the other processes of this run. Raises CardiganError that names the missing ones after a timeout."""
    seconds = timeout_seconds + JOIN_SECONDS
    timeout = timedelta(seconds=seconds)
    address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    try:
        store = _open_store(timeout)
    except (KeyError, RuntimeError, ValueError) as error:
        raise CardiganError(
            f"Process {rank()} ({socket.gethostname()}) cannot reach the main process at {address} within "
            f"{seconds:g} seconds ({first_line(error)}): `cardigan doctor --nodes` on both hosts shows why."
        ) from error
    this_rank, num_processes = rank(), world_size()
    prefix = f"cardigan/{next(_NUM_JOINS)}"
    hosts = _exchange_hosts(PrefixStore(prefix, store), this_rank, num_processes, seconds)
    heartbeat_store = _open_store(timeout, is_master=False)
    heartbeat = Heartbeat(
        PrefixStore(prefix, heartbeat_store),
        this_rank,
        hosts,
        timeout_seconds,
        may_hang=device.type == "cuda",
    )
    try:
        distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=this_rank,
            world_size=num_processes,
            timeout=timeout,
        )
        _gloo_group(timeout)
    except RuntimeError as error:
        raise CardiganError(
            f"Process {this_rank} ({hosts[this_rank]}) reached the main process at {address} but not all others "
            f"({first_line(error)}): a host name may stand for 127.0.1.1, or GLOO_SOCKET_IFNAME must name the network "
            "interface; `cardigan doctor --nodes` on every host shows which."
        ) from error
    for group in (distributed.group.WORLD, _gloo_group()):
        distributed.distributed_c10d._set_pg_timeout(COLLECTIVE_TIMEOUT, group)
    heartbeat.start()
    return Session(PrefixStore(prefix, store), heartbeat)


def _open_store(timeout: timedelta, is_master: bool | None = None) -> TCPStore:
    """Return a connection to the store at MASTER_ADDR. Without torchrun, whose agent has it, process 0 opens it."""
    has_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=rank() == 0 and not has_agent if is_master is None else is_master,
        timeout=timeout,
        wait_for_workers=False,
        multi_tenant=True,
    )


def _exchange_hosts(store: Store, this_rank: int, num_processes: int, seconds: float) -> list[str]:
    """Return the host of every process. Raises CardiganError, in every process, that names those that are missing."""
    announce(store, this_rank)
    keys = [f"host/{each}" for each in range(num_processes)]
    deadline = time.monotonic() + seconds + JOIN_SECONDS

    def raise_if_late() -> None:
        if time.monotonic() > deadline:
            raise CardiganError(
                f"The main process of this run did not answer process {this_rank} within {seconds + JOIN_SECONDS:g} "
                "seconds: look for its error message, and start all processes again."
            )

    def exchange() -> list[str]:
        store.set(f"host/{this_rank}", socket.gethostname())
        if this_rank == 0:
            _appear(store, keys, seconds)
            hosts = [store.get(key).decode() if store.check([key]) else "" for key in keys]
            store.set("hosts", json.dumps(hosts))
        _appear(store, ["hosts"])
        return json.loads(store.get("hosts"))

    hosts = _in_thread(exchange, raise_if_late)
    missing = [str(each) for each, host in enumerate(hosts) if not host]
    if missing:
        raise CollectiveError(
            f"{'Process' if len(missing) == 1 else 'Processes'} {', '.join(missing)} of {num_processes} did not join "
            f"within {seconds:g} seconds: look for an error message on those nodes, and start all processes again "
            "(--process-timeout-seconds sets the time)."
        )
    return hosts


def _appear(store: Store, keys: list[str], seconds: float = math.inf) -> bool:
    """Wait for keys in the store and return whether all have appeared in time."""
    deadline = time.monotonic() + seconds
    while not store.check(keys):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _in_thread(function: Callable[[], Result], check: Callable[[], None]) -> Result:
    """Return the function's result. Meanwhile call `check`, which may raise: a request to a lost store never ends."""
    results: Queue[Result | RuntimeError] = Queue()

    def call() -> None:
        try:
            results.put(function())
        except RuntimeError as error:
            results.put(error)

    threading.Thread(target=call, daemon=True).start()
    while True:
        try:
            result = results.get(timeout=POLL.total_seconds())
        except Empty:
            check()
            continue
        if isinstance(result, RuntimeError):
            with _collective_errors():
                raise result
        return result


def _exit_at_once() -> None:
    """Skip the end of Python after a loss: gloo would wait for its unfinished collectives, forever."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(2)


_GLOO_GROUPS: list[distributed.ProcessGroup] = []


def _gloo_group(timeout: timedelta = COLLECTIVE_TIMEOUT) -> distributed.ProcessGroup:
    """Return the group for short messages: on the CPU, so that agreeing never waits for a GPU's queue."""
    if not _GLOO_GROUPS:
        group = distributed.new_group(backend="gloo", timeout=timeout)
        assert isinstance(group, distributed.ProcessGroup)
        _GLOO_GROUPS.append(group)
    return _GLOO_GROUPS[0]


def _all_reduce(
    tensor: torch.Tensor, op: Any = distributed.ReduceOp.SUM, group: distributed.ProcessGroup | None = None
) -> None:
    """Reduce a tensor in place over all processes."""
    with _collective_errors():
        work = distributed.all_reduce(tensor, op=op, group=group, async_op=True)
    _wait(work, is_async=tensor.is_cuda)


def _wait(work: distributed.Work | None, is_async: bool = False) -> None:
    """Wait for a collective, unless a process is lost. A GPU's collective is only queued."""
    assert work is not None
    with _collective_errors():
        while True:
            try:
                work.wait() if is_async else work.wait(POLL)
                return
            except RuntimeError:
                if is_async:
                    raise
                if work.is_completed():  # it failed, or ended at this moment
                    work.wait()
                    return
                if _SESSIONS:
                    _SESSIONS[0].raise_if_lost()


@contextmanager
def _collective_errors() -> Iterator[None]:
    """Turn the loss of another process, which every collective reports in its own words, into one sentence."""
    try:
        yield
    except RuntimeError as error:
        explanation = ""
        if _SESSIONS:
            explanation, _SESSIONS[0].is_broken = _SESSIONS[0].heartbeat.explanation(), True
        raise ProcessLost(f"{explanation or 'Another process of this run is gone.'} {PROCESS_LOST}") from error


def checksum(tensor: torch.Tensor) -> torch.Tensor:
    """Return two int64 sums over the tensor's bits, one weighted by position, on its device. Equal bits, equal sums."""
    bits = tensor.detach().contiguous().reshape(-1)
    words = bits.view(torch.int32).long() if bits.element_size() == 4 else bits.view(torch.uint8).long()
    weights = torch.arange(1, len(words) + 1, device=words.device) * 0x9E3779B1  # wraps around, and that is the point
    return torch.stack([words.sum(), (words * weights).sum()])
