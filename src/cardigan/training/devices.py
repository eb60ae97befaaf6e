"""Where the arithmetic happens: device, precision, processes. The only file that knows `torch.distributed`.

Distribution is plain modules, all backwards, then one flat all-reduce of the gradients; no wrapper.
Does not know networks beyond replacing their batch normalisation by one that sees the whole global batch.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed, nn
from torch.distributed.nn.functional import all_reduce

from cardigan.config import Config
from cardigan.errors import CardiganError

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Devices:
    """This process's device and its place among the processes."""

    device: torch.device
    bf16: bool
    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def autocast(self) -> torch.autocast:
        """Return the context networks run in; outside of it everything is fp32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def share(self, batch: int) -> slice:
        """Return this process's part of a global batch."""
        part = batch // self.world_size
        return slice(self.rank * part, (self.rank + 1) * part)

    def place(self, network: Network) -> Network:
        """Return the network on the device, channels last, with statistics synchronised if there are several processes."""
        if self.world_size > 1:
            synchronise_statistics(network)
        network.to(self.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing in torch's stubs
        return network

    def average(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the tensors averaged over the processes, in one flat all-reduce."""
        if self.world_size == 1:
            return list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        flat /= self.world_size
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]

    def highest(self, value: int) -> int:
        """Return the largest of the processes' values: how they agree to stop."""
        if self.world_size == 1:
            return value
        shared = torch.tensor([value], device=self.device)
        distributed.all_reduce(shared, op=distributed.ReduceOp.MAX)
        return int(shared)

    def broadcast(self, text: str) -> str:
        """Return the main process's text in every process."""
        if self.world_size == 1:
            return text
        shared = [text]
        distributed.broadcast_object_list(shared, src=0, device=self.device)
        return shared[0]

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.world_size > 1:
            distributed.barrier()

    def leave(self) -> None:
        if self.world_size > 1 and distributed.is_initialized():
            distributed.destroy_process_group()


def open_devices(config: Config) -> Devices:
    """Return the device the config asks for; under `torchrun`, join the other processes (gloo on CPU, NCCL on GPUs)."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    if config.batch % world_size:
        raise CardiganError(f"batch is {config.batch} over {world_size} processes: expected a multiple of {world_size}.")
    device = _device(config.device, int(os.environ.get("LOCAL_RANK", "0")) if world_size > 1 else None)
    if world_size > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    bf16 = config.precision == "bf16" or (config.precision == "auto" and multiplies_bf16(device))
    return Devices(device, bf16, rank, world_size)


def _device(name: str, local_rank: int | None) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and local_rank is not None:
        name = f"cuda:{local_rank}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises the second when it was built without CUDA
        raise CardiganError(f"device is {name!r}, which this machine or this PyTorch does not have: use auto or cpu.") from error
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def multiplies_bf16(device: torch.device) -> bool:
    """Return whether the hardware has bf16 products (CUDA >= 8.0, AVX-512-BF16 or AMX); elsewhere bf16 is emulated and slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the batches of all processes; equal to `nn.BatchNorm2d` on their concatenation.

    PyTorch's own SyncBatchNorm refuses the CPU and cannot be differentiated twice, which gradient penalties need.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(input)
        values = input.float()
        count = values.numel() // values.shape[1] * distributed.get_world_size()
        mean = all_reduce(values.sum((0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = all_reduce(centred.square().sum((0, 2, 3))) / count
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


def synchronise_statistics(network: nn.Module) -> None:
    """Turn every BatchNorm2d of the network into a synchronised one, in place."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SynchronisedBatchNorm
