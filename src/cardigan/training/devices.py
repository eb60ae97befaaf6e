"""The device, arithmetic, memory layout and process group of a run.

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
    """The device, arithmetic and process group of this process."""

    device: torch.device
    arithmetic: Arithmetic = "fp32"
    """Arithmetic of the networks' matrix products and convolutions. Everything else is fp32."""
    process_group: ProcessGroup = field(default_factory=ProcessGroup)

    @property
    def is_async(self) -> bool:
        """Whether the host queues kernels without waiting for results. A step must then not read a tensor's value."""
        return self.device.type == "cuda"

    def autocast(self) -> torch.autocast:
        """Return the autocast context for networks. Outside of it everything is fp32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.arithmetic == "bf16")

    def prepare(self, network: Network) -> Network:
        """Return the network on the device, channels last (except on Metal), with synchronized batch normalization."""
        self.process_group.convert_sync_batchnorm(network)
        network.to(self.device)
        if not is_metal(self.device):
            network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing in torch's stubs
        return network


def open_devices(config: Config) -> Devices:
    """Return the device and arithmetic of the config. Under `torchrun`, join the process group.

    Raises CardiganError for a device that is not available, or an arithmetic that it does not support.
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
