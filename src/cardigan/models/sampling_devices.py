"""The devices that sample a generator's images: one in this process, or several with a process each.

The images are the same on one kind of device, whatever the number of processes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from safetensors.torch import load, save

from cardigan.config import Config
from cardigan.data.source import ImageSpec
from cardigan.hardware.device import find_device
from cardigan.hardware.device_processes import BuildFn, DeviceProcesses, process_devices
from cardigan.models.sampling import sample_pixels, validate_labels
from cardigan.models.snapshot import Snapshot
from cardigan.nets.table import build_generator
from cardigan.plugins import load_plugins
from cardigan.shapes import Labels, Pixels

PIECE_SIZE = 256
"""Images that a process samples at once: a multiple of every device's batch size, so that no batch is padded."""
SAMPLE = "sample"
"""Name of the function in `DeviceProcesses`."""


@dataclass(frozen=True)
class SampleTask:
    """Images to sample, one per key (seed, index); see `sample_pixels`."""

    keys: Sequence[tuple[int, int]]
    labels: Sequence[int] | None = None
    truncation: float = 1.0


StreamFn: TypeAlias = Callable[[Iterable[SampleTask]], Iterator[Pixels]]


@dataclass(frozen=True)
class SamplingDevices:
    """The devices that sample one generator."""

    stream: StreamFn
    """Yields the images of each task, in order. Several devices work on the next tasks meanwhile."""
    num_classes: int = 0

    def sample(self, keys: Sequence[tuple[int, int]], labels: Labels | None = None, truncation: float = 1.0) -> Pixels:
        """Return the same images as `sample_pixels`."""
        if labels is not None:
            validate_labels(labels, len(keys), self.num_classes)
        classes = None if labels is None else labels.tolist()
        pieces = (slice(start, start + PIECE_SIZE) for start in range(0, len(keys), PIECE_SIZE))
        tasks = (SampleTask(keys[piece], None if classes is None else classes[piece], truncation) for piece in pieces)
        return torch.cat(list(self.stream(tasks)))


@contextmanager
def open_sampling(snapshot: Snapshot, device: str = "auto", num_devices: int = 1) -> Iterator[SamplingDevices]:
    """Yield the devices that sample a snapshot: this process's, or `num_devices` processes, which end with the context.

    Raises CardiganError for devices that this machine does not have, and at the end if a process died.
    """
    if num_devices == 1:
        yield sampling_in_this_process(snapshot, device)
        return
    builders = {SAMPLE: sampling_builder(snapshot)}
    with DeviceProcesses(process_devices(device, num_devices), builders) as processes:
        yield sampling_in_processes(snapshot, processes)


def sampling_in_this_process(snapshot: Snapshot, device: str | torch.device) -> SamplingDevices:
    """Return this process's device. Copies a generator that is on another one."""
    torch_device = find_device(device)
    if next(snapshot.generator.parameters()).device != torch_device:
        snapshot = replace(snapshot, generator=deepcopy(snapshot.generator).to(torch_device))
    return SamplingDevices(lambda tasks: (_sample(snapshot, task) for task in tasks), snapshot.spec.num_classes)


def sampling_in_processes(snapshot: Snapshot, processes: DeviceProcesses) -> SamplingDevices:
    """Return the devices of processes that have the `sampling_builder` of this snapshot."""
    return SamplingDevices(
        lambda tasks: (torch.from_numpy(pixels) for pixels in processes.map(SAMPLE, tasks)), snapshot.spec.num_classes
    )


def sampling_builder(snapshot: Snapshot) -> BuildFn:
    """Return the function that builds the generator in another process. It holds the weights: files may change."""
    tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in snapshot.generator.state_dict().items()}
    return partial(_build_sampling, snapshot.config, snapshot.spec, save(tensors))


def _build_sampling(
    config: Config, spec: ImageSpec, weights: bytes, device: torch.device
) -> Callable[[SampleTask], np.ndarray]:
    load_plugins()
    with torch.device("meta"):
        generator = build_generator(config, spec)
    generator.load_state_dict({name: tensor.clone() for name, tensor in load(weights).items()}, assign=True)
    snapshot = Snapshot(generator.eval().requires_grad_(False).to(device), config, spec, 0)
    return lambda task: _sample(snapshot, task).numpy()


def _sample(snapshot: Snapshot, task: SampleTask) -> Pixels:
    labels = None if task.labels is None else torch.tensor(task.labels, dtype=torch.long)
    return sample_pixels(snapshot, task.keys, labels, task.truncation)
