"""The processes of one run: the only file that knows `torch.distributed`.

Distribution is plain modules, all backwards, then one flat all-reduce of the gradients; no wrapper. Does not know
what is trained.
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

from cardigan.checks import nearest_divisor
from cardigan.config import Config
from cardigan.errors import CardiganError, CollectiveError

Network = TypeVar("Network", bound=nn.Module)
Result = TypeVar("Result")
COLLECTIVE_TIMEOUT = timedelta(days=1)
"""One process may decode a million images while the others wait. A process that dies is noticed at once anyway."""
PROCESS_LOST = (
    "Another process of this run is gone. Everything up to the last checkpoint is saved: the same command with "
    "--resume continues from there."
)


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

    def convert_sync_batchnorm(self, network: Network) -> Network:
        """Return the network with every BatchNorm2d replaced, in place, by one that sees the whole global batch."""
        if self.world_size > 1:
            for module in network.modules():
                if type(module) is nn.BatchNorm2d:
                    module.__class__ = SyncBatchNorm2d
        return network

    def local_copy(self, network: Network) -> Network:
        """Return a copy of the network that one process can use by itself, with its own batch statistics."""
        network_copy = copy.deepcopy(network)
        for module in network_copy.modules():
            if type(module) is SyncBatchNorm2d:
                module.__class__ = nn.BatchNorm2d  # pyright: ignore[reportAttributeAccessIssue] - undoes convert_sync_batchnorm
        return network_copy

    def all_reduce_mean(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the tensors averaged over the processes, in one flat all-reduce."""
        if self.world_size == 1:
            return list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors]) / self.world_size
        buffer = flat.to(torch.bfloat16) if self.all_reduce_dtype == "bf16" else flat
        with _collective_errors():
            distributed.all_reduce(buffer)
        means = buffer.to(flat.dtype).split([tensor.numel() for tensor in tensors])
        return [mean.view_as(tensor) for mean, tensor in zip(means, tensors, strict=True)]

    def all_reduce_max(self, value: int) -> int:
        """Return the largest of the processes' values; waits for all of them."""
        return self.all_reduce_max_async(value).result()

    def all_reduce_max_async(self, value: int) -> "AsyncMax":
        """Begin to find the largest of the processes' values and return at once."""
        buffer = torch.tensor([value])
        if self.world_size == 1:
            return AsyncMax(buffer, None)
        with _collective_errors():
            return AsyncMax(
                buffer, distributed.all_reduce(buffer, op=distributed.ReduceOp.MAX, group=_gloo_group(), async_op=True)
            )

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
        buffer = [text]
        with _collective_errors():
            distributed.broadcast_object_list(buffer, src=0, group=_gloo_group(), device=torch.device("cpu"))
        return buffer[0]

    def barrier(self) -> None:
        """Return when every process has come here."""
        self.all_reduce_max(0)

    def check_replicas(self, tensors: Mapping[str, torch.Tensor], images_seen: int) -> None:
        """Raise CardiganError, in every process, naming the first tensor whose bits are not the same in all of them."""
        if self.world_size == 1:
            return
        sums = torch.stack([checksum(tensor) for tensor in tensors.values()]).cpu()
        lowest, highest = sums.clone(), sums
        with _collective_errors():
            distributed.all_reduce(lowest, op=distributed.ReduceOp.MIN, group=_gloo_group())
            distributed.all_reduce(highest, op=distributed.ReduceOp.MAX, group=_gloo_group())
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

    def destroy(self) -> None:
        if self.world_size > 1 and distributed.is_initialized():
            # Gloo's threads release their last tensors a moment later. Without the wait the process aborts.
            time.sleep(0.1)
            distributed.destroy_process_group()
            _GLOO_GROUPS.clear()


@dataclass
class AsyncMax:
    """A question to all processes that is on its way."""

    buffer: torch.Tensor
    work: distributed.Work | None

    def result(self) -> int:
        if self.work is not None:
            with _collective_errors():
                self.work.wait()
        return int(self.buffer)


def world_size() -> int:
    """Return how many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return which of them this is, the main one being 0."""
    return int(os.environ.get("RANK", "0"))


def init_process_group(config: Config, device: torch.device) -> ProcessGroup:
    """Return this process's group. Under `torchrun` it joins the others: gloo on CPUs; NCCL on GPUs, and gloo for
    messages."""
    num_processes = world_size()
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
    if num_processes > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return ProcessGroup(rank(), num_processes, config.all_reduce_dtype)


_GLOO_GROUPS: list[distributed.ProcessGroup] = []


def _gloo_group() -> distributed.ProcessGroup:
    """Return the group for short messages: on the CPU, so that agreeing never waits for a GPU's queue."""
    if not _GLOO_GROUPS:
        group = distributed.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT)
        assert isinstance(group, distributed.ProcessGroup)
        _GLOO_GROUPS.append(group)
    return _GLOO_GROUPS[0]


@contextmanager
def _collective_errors() -> Iterator[None]:
    """Turn the loss of another process, which every collective reports in its own words, into one sentence."""
    try:
        yield
    except RuntimeError as error:
        raise CardiganError(PROCESS_LOST) from error


def checksum(tensor: torch.Tensor) -> torch.Tensor:
    """Return two int64 sums over the tensor's bits, one weighted by position, on its device. Equal bits, equal sums."""
    bits = tensor.detach().contiguous().reshape(-1)
    words = bits.view(torch.int32).long() if bits.element_size() == 4 else bits.view(torch.uint8).long()
    weights = torch.arange(1, len(words) + 1, device=words.device) * 0x9E3779B1  # wraps around, and that is the point
    return torch.stack([words.sum(), (words * weights).sum()])


class AllReduceSum(torch.autograd.Function):
    """The sum over all processes; as every process gets it, its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        with _collective_errors():
            distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _all_reduce_sum(gradients[0])


def _all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    total = AllReduceSum.apply(tensor)
    assert isinstance(total, torch.Tensor)
    return total


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization over the batches of all processes; equal to `nn.BatchNorm2d` on their concatenation.

    PyTorch's own SyncBatchNorm refuses the CPU and cannot be differentiated twice, which gradient penalties need.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(input)
        values = input.float()
        count = values.numel() // values.shape[1] * distributed.get_world_size()
        mean = _all_reduce_sum(values.sum((0, 2, 3))) / count
        centered = values - mean[:, None, None]
        variance = _all_reduce_sum(centered.square().sum((0, 2, 3))) / count
        self._update_running_stats(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centered * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    @torch.no_grad()
    def _update_running_stats(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
