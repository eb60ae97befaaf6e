"""The processes of one run: the only file that knows `torch.distributed`.

Distribution is plain modules, all backwards, then one flat all-reduce of the gradients; no wrapper. Does not know what is trained.
"""

import copy
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
from torch import distributed, nn

from cardigan.config import Config
from cardigan.errors import CardiganError, SharedError
from cardigan.values import nearest_divisor

Network = TypeVar("Network", bound=nn.Module)
Result = TypeVar("Result")
PATIENCE = timedelta(days=1)
"""One process may decode a million pictures while the others wait; one that dies is noticed at once all the same."""
LOST = "Another process of this run is gone. Everything up to the last checkpoint is saved: the same command with --resume goes on from there."


@dataclass(frozen=True)
class Processes:
    """This process's place among those of its run."""

    rank: int = 0
    world_size: int = 1
    wire: Literal["fp32", "bf16"] = "fp32"
    """What gradients travel in; they are summed in it too."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """Return this process's part of a global batch."""
        part = batch // self.world_size
        return slice(self.rank * part, (self.rank + 1) * part)

    def synchronise_statistics(self, network: Network) -> Network:
        """Return the network with every BatchNorm2d replaced, in place, by one that sees the whole global batch."""
        if self.world_size > 1:
            for module in network.modules():
                if type(module) is nn.BatchNorm2d:
                    module.__class__ = SynchronisedBatchNorm
        return network

    def copied_alone(self, network: Network) -> Network:
        """Return a copy of the network that one process can use by itself, with its own batch statistics."""
        copied = copy.deepcopy(network)
        for module in copied.modules():
            if type(module) is SynchronisedBatchNorm:
                module.__class__ = nn.BatchNorm2d  # pyright: ignore[reportAttributeAccessIssue] - undoes synchronise_statistics
        return copied

    def average(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the tensors averaged over the processes, in one flat all-reduce."""
        if self.world_size == 1:
            return list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors]) / self.world_size
        travelling = flat.to(torch.bfloat16) if self.wire == "bf16" else flat
        with _watched():
            distributed.all_reduce(travelling)
        parts = travelling.to(flat.dtype).split([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]

    def highest(self, value: int) -> int:
        """Return the largest of the processes' values; waits for all of them."""
        return self.exchange(value).result()

    def exchange(self, value: int) -> "Exchange":
        """Begin to find the largest of the processes' values and return at once."""
        shared = torch.tensor([value])
        if self.world_size == 1:
            return Exchange(shared, None)
        with _watched():
            return Exchange(shared, distributed.all_reduce(shared, op=distributed.ReduceOp.MAX, group=_talk(), async_op=True))

    def together(self, deed: Callable[[], Result]) -> Result | None:
        """Do something in the main process alone and return what it gives, None in the others; if it fails, all of them do."""
        result, complaint = None, ""
        if self.is_main:
            try:
                result = deed()
            except CardiganError as error:
                complaint = str(error)
        complaint = self.broadcast(complaint)
        if complaint:
            raise SharedError(complaint)
        return result

    def broadcast(self, text: str) -> str:
        """Return the main process's text in every process."""
        if self.world_size == 1:
            return text
        shared = [text]
        with _watched():
            distributed.broadcast_object_list(shared, src=0, group=_talk(), device=torch.device("cpu"))
        return shared[0]

    def wait(self) -> None:
        """Return when every process has come here."""
        self.highest(0)

    def check_replicas(self, tensors: Mapping[str, torch.Tensor], images_seen: int) -> None:
        """Raise CardiganError, in every process, naming the first tensor whose bits are not the same in all of them."""
        if self.world_size == 1:
            return
        sums = torch.stack([checksum(tensor) for tensor in tensors.values()]).cpu()
        lowest, highest = sums.clone(), sums
        with _watched():
            distributed.all_reduce(lowest, op=distributed.ReduceOp.MIN, group=_talk())
            distributed.all_reduce(highest, op=distributed.ReduceOp.MAX, group=_talk())
        differing = [name for name, same in zip(tensors, (lowest == highest).all(dim=1).tolist(), strict=True) if not same]
        if differing:
            raise SharedError(
                f"The {self.world_size} processes no longer agree after {images_seen:,} images: {differing[0]} is the first of {len(differing)} "
                "tensors that differ. Nothing was saved of it; the same command with --resume goes on from the last checkpoint. "
                "If it happens again, a device or the network between them computes wrongly."
            )

    def leave(self) -> None:
        if self.world_size > 1 and distributed.is_initialized():
            time.sleep(0.1)  # gloo's threads let go of their last tensors a moment after answering; destroyed before that, the process aborts
            distributed.destroy_process_group()
            _GROUPS.clear()


@dataclass
class Exchange:
    """A question to all processes that is on its way."""

    shared: torch.Tensor
    work: distributed.Work | None

    def result(self) -> int:
        if self.work is not None:
            with _watched():
                self.work.wait()
        return int(self.shared)


def world_size() -> int:
    """Return how many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return which of them this is, the main one being 0."""
    return int(os.environ.get("RANK", "0"))


def join_processes(config: Config, device: torch.device) -> Processes:
    """Return this process's place; under `torchrun`, meet the others (gloo on CPU, NCCL on GPUs, gloo beside it for short messages)."""
    count = world_size()
    together = count * config.accumulate * config.packing
    if config.batch % together:
        shares = "".join(f" x {number} ({name})" for name, number in (("accumulate", config.accumulate), ("packing", config.packing)) if number > 1)
        raise SharedError(f"batch is {config.batch} over {count} processes{shares}: expected a multiple of {together}.")
    group, logits = config.discriminator.minibatch_deviation, config.batch // together
    if group and logits % group:
        raise SharedError(
            f"discriminator.minibatch_deviation is {group}, but each process computes {logits} logits at a time: "
            f"set it to {nearest_divisor(group, logits, least=2)}, or start fewer processes."
        )
    if count > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Processes(rank(), count, config.all_reduce)


_GROUPS: list[distributed.ProcessGroup] = []


def _talk() -> distributed.ProcessGroup:
    """Return the group for short messages: on the CPU, so that agreeing never waits for a GPU's queue."""
    if not _GROUPS:
        group = distributed.new_group(backend="gloo", timeout=PATIENCE)
        assert isinstance(group, distributed.ProcessGroup)
        _GROUPS.append(group)
    return _GROUPS[0]


@contextmanager
def _watched() -> Iterator[None]:
    """Turn the loss of another process, which every collective reports in its own words, into one sentence."""
    try:
        yield
    except RuntimeError as error:
        raise CardiganError(LOST) from error


def checksum(tensor: torch.Tensor) -> torch.Tensor:
    """Return two int64 sums over the tensor's bits, one of them weighted by position: equal bits, equal sums; on the tensor's device."""
    bits = tensor.detach().contiguous().reshape(-1)
    words = bits.view(torch.int32).long() if bits.element_size() == 4 else bits.view(torch.uint8).long()
    weights = torch.arange(1, len(words) + 1, device=words.device) * 0x9E3779B1  # wraps around, and that is the point
    return torch.stack([words.sum(), (words * weights).sum()])


class Summed(torch.autograd.Function):
    """The sum over all processes; as every process gets it, its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        with _watched():
            distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _summed(gradients[0])


def _summed(tensor: torch.Tensor) -> torch.Tensor:
    total = Summed.apply(tensor)
    assert isinstance(total, torch.Tensor)
    return total


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the batches of all processes; equal to `nn.BatchNorm2d` on their concatenation.

    PyTorch's own SyncBatchNorm refuses the CPU and cannot be differentiated twice, which gradient penalties need.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(input)
        values = input.float()
        count = values.numel() // values.shape[1] * distributed.get_world_size()
        mean = _summed(values.sum((0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = _summed(centred.square().sum((0, 2, 3))) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
