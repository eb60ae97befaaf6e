"""The devices of an evaluation: where its images are sampled and their features computed.

The metrics themselves are computed in this process.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from cardigan.hardware.device_processes import BuildFn, DeviceProcesses, process_devices
from cardigan.metrics.features import FeatureExtractor, Features, ImageShape, find_extractor
from cardigan.models.sampling_devices import (
    SAMPLE,
    SamplingDevices,
    sampling_builder,
    sampling_in_processes,
    sampling_in_this_process,
)
from cardigan.models.snapshot import Snapshot
from cardigan.plugins import load_plugins
from cardigan.shapes import Pixels

PIECE_SIZE = 200
"""Images whose features a process computes at once: a multiple of every extractor's chunk, so that chunks are full."""
FEATURES = "features"
"""Name of the function in `DeviceProcesses`."""


@dataclass(frozen=True)
class ExtractorChoice:
    """Arguments of `find_extractor`."""

    name: str
    image_shape: ImageShape
    weights: Path | None = None


@contextmanager
def open_evaluation(
    snapshot: Snapshot, choice: ExtractorChoice, device: str = "auto", num_devices: int = 1
) -> Iterator[tuple[SamplingDevices, FeatureExtractor]]:
    """Yield the devices that sample, and an extractor that uses the same devices.

    These are this process's device, or `num_devices` processes, which end with the context. Raises CardiganError as
    `find_extractor` does, for devices that this machine does not have, and at the end if a process died.
    """
    if num_devices == 1:
        extractor = find_extractor(choice.name, choice.image_shape, choice.weights, device)
        yield sampling_in_this_process(snapshot, device), extractor
        return
    extractor = find_extractor(choice.name, choice.image_shape, choice.weights)
    builders: dict[str, BuildFn] = {SAMPLE: sampling_builder(snapshot), FEATURES: partial(_build_features, choice)}
    with DeviceProcesses(process_devices(device, num_devices), builders) as processes:
        features = partial(_features_in_processes, processes)
        yield sampling_in_processes(snapshot, processes), replace(extractor, features=features)


def _features_in_processes(processes: DeviceProcesses, pixels: Pixels) -> Features:
    pieces = (piece.numpy() for piece in pixels.split(PIECE_SIZE))
    return torch.cat([torch.from_numpy(rows) for rows in processes.map(FEATURES, pieces)])


def _build_features(choice: ExtractorChoice, device: torch.device) -> Callable[[np.ndarray], np.ndarray]:
    load_plugins()
    extractor = find_extractor(choice.name, choice.image_shape, choice.weights, device)
    return lambda pixels: extractor.features(torch.from_numpy(pixels)).numpy()
