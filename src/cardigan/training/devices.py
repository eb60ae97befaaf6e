"""Where the arithmetic happens: which device, in which precision, in which memory layout.

Does not know the other processes (`processes.py`), nor how a step is replayed on a GPU (`replay.py`).
"""

import os
from dataclasses import dataclass, field

import torch

from cardigan.config import Config
from cardigan.errors import CardiganError
from cardigan.training.processes import Network, Processes, join_processes, world_size


@dataclass(frozen=True)
class Devices:
    """This process's device and its place among the processes."""

    device: torch.device
    bf16: bool
    processes: Processes = field(default_factory=Processes)

    def autocast(self) -> torch.autocast:
        """Return the context networks run in; outside of it everything is fp32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def place(self, network: Network) -> Network:
        """Return the network on the device, channels last, with statistics synchronised if there are several processes."""
        self.processes.synchronise_statistics(network)
        network.to(self.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing in torch's stubs
        return network

    def send(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a CPU tensor on the device; to a GPU it travels from pinned memory, so that the loop does not wait for it."""
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor.to(self.device)


def open_devices(config: Config) -> Devices:
    """Return the device the config asks for; under `torchrun`, join the other processes.

    Convolutions of a GPU are asked for their deterministic forms, since a resumed run has to end with the same bits.
    """
    device = _device(config.device, int(os.environ.get("LOCAL_RANK", "0")) if world_size() > 1 else None)
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
    bf16 = config.precision == "bf16" or (config.precision == "auto" and multiplies_bf16(device))
    return Devices(device, bf16, join_processes(config, device))


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
