"""Where a run computes: its device, the arithmetic and memory layout of networks there, and the other processes.

Does not know how devices are found (`hardware/`), nor how a step is replayed on a GPU (`cuda_graph.py`).
"""

import os
from dataclasses import dataclass, field

import torch

from cardigan.config import Config
from cardigan.hardware.device import find_device
from cardigan.hardware.metal import is_metal, refuse_on_metal
from cardigan.hardware.precision import Arithmetic, allow_tf32, resolve_arithmetic
from cardigan.training.distributed import Network, ProcessGroup, init_process_group, world_size


@dataclass(frozen=True)
class Devices:
    """This process's device and its place among the processes."""

    device: torch.device
    arithmetic: Arithmetic = "fp32"
    """Of the networks' products and convolutions; everything else is fp32."""
    process_group: ProcessGroup = field(default_factory=ProcessGroup)

    @property
    def is_async(self) -> bool:
        """Whether the host queues kernels without waiting for their results, so that no step may read a value."""
        return self.device.type == "cuda"

    def autocast(self) -> torch.autocast:
        """Return the context that networks run in; outside of it everything is fp32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.arithmetic == "bf16")

    def prepare(self, network: Network) -> Network:
        """Return the network on the device, channels last (but on Metal), with the batch statistics of all processes."""
        self.process_group.convert_sync_batchnorm(network)
        network.to(self.device)
        if not is_metal(self.device):
            network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing in torch's stubs
        return network


def open_devices(config: Config) -> Devices:
    """Return the device and arithmetic that the config asks for; under `torchrun`, join the other processes.

    Raises CardiganError for a device that is not there, or an arithmetic that it does not have.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0")) if world_size() > 1 else None
    device = find_device(config.device, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world_size() > 1:
        refuse_on_metal("several processes", device, "use one process there, or --device cpu")
    arithmetic = resolve_arithmetic(config.precision, device)
    if arithmetic == "bf16":
        refuse_on_metal("bf16", device, "use --precision fp32 there")
    allow_tf32(arithmetic == "tf32")
    return Devices(device, arithmetic, init_process_group(config, device))
