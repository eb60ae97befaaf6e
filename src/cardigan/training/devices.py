"""The device, arithmetic, memory layout and process group of a run.

Does not know how devices are found (`hardware/`), nor how a step is replayed on a GPU (`cuda_graph.py`).
"""

import os
from dataclasses import dataclass, field
from importlib.metadata import version

import torch

from cardigan.config import Config
from cardigan.errors import CardiganError
from cardigan.hardware.device import find_device
from cardigan.hardware.metal import is_metal, refuse_on_metal
from cardigan.hardware.precision import Arithmetic, allow_tf32, resolve_arithmetic
from cardigan.overrides import flatten
from cardigan.plugins import load_plugins
from cardigan.training.agreement import Facts
from cardigan.training.distributed import ProcessGroup, check_world_size, init_process_group, world_size
from cardigan.training.sync_batch_norm import Network, convert_sync_batchnorm


@dataclass(frozen=True)
class Devices:
    """The device, arithmetic and process group of this process.

    Examples:
        >>> import cardigan
        >>> import torch
        >>> devices = cardigan.Devices(torch.device("cpu"))
        >>> devices.arithmetic, devices.is_async
        ('fp32', False)
    """

    device: torch.device
    """Where the networks and their inputs are."""
    arithmetic: Arithmetic = "fp32"
    """Arithmetic of the networks' matrix products and convolutions. Everything else is fp32."""
    process_group: ProcessGroup = field(default_factory=ProcessGroup)
    """The processes of the run. Default: this one alone."""

    @property
    def is_async(self) -> bool:
        """Whether the host queues kernels without waiting for results. A step must then not read a tensor's value."""
        return self.device.type == "cuda"

    def autocast(self) -> torch.autocast:
        """Return the autocast context for networks. Outside of it everything is fp32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.arithmetic == "bf16")

    def prepare(self, network: Network) -> Network:
        """Return `network` on the device, channels last (except on Metal), with synchronized batch normalization."""
        convert_sync_batchnorm(network, self.process_group)
        network.to(self.device)
        if not is_metal(self.device):
            network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing in torch's stubs
        return network


def open_devices(config: Config, facts: Facts | None = None) -> Devices:
    """Return the device and arithmetic of the config. Under `torchrun`, join the process group.

    All processes must then have the same settings, versions, plug-ins and arithmetic, and the same further `facts`.

    Raises CardiganError for a device that is not available, an arithmetic that it does not support, or a batch that
    cannot be divided among the processes.
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
    process_group = init_process_group(config, device)
    try:
        process_group.check_agreement({**(facts or {}), **shared_facts(config, arithmetic)})
        check_world_size(config, process_group.world_size)
    except CardiganError:
        process_group.destroy()
        raise
    return Devices(device, arithmetic, process_group)


def shared_facts(config: Config, arithmetic: Arithmetic) -> dict[str, str]:
    """Return what all processes of a run must have in common, by name: versions, plug-ins, arithmetic and settings."""
    plugins = ", ".join(f"{name} {number}".strip() for name, number in load_plugins().items())
    software = {
        "the version of cardigan": version("cardigan"),
        "the version of torch": torch.__version__,
        "the list of plug-ins": plugins or "empty",
        "the arithmetic (--precision)": arithmetic,
    }
    return {**software, **{name: repr(value) for name, value in flatten(config).items()}}
