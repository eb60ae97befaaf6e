"""A training without a run directory: the steps of `cardigan train`, recorded or eager, from the start or resumed.

Writes and prints nothing.
"""

import math
from dataclasses import replace
from functools import lru_cache

import torch

from cardigan.config import Config, DataConfig
from cardigan.data.batches import Batches
from cardigan.data.datasets import open_datasets
from cardigan.data.prefetch import Prefetcher
from cardigan.data.source import ImageSource
from cardigan.experiment import build
from cardigan.training.budget import Budget, Clock
from cardigan.training.cuda_graph import CudaGraphStep, cuda_graph_step
from cardigan.training.devices import open_devices
from cardigan.training.loop import Trainer, make_step, run_step
from cardigan.training.schedule import step_kinds
from cardigan.training.state import load_state_tensors, state_tensors

Tensors = dict[str, torch.Tensor]


@lru_cache(maxsize=8)
def images_of(data: DataConfig) -> ImageSource:
    """Return the training images, cached for all configs that use them."""
    return open_datasets(data).train


class SmallTraining:
    """A training that is advanced step by step."""

    def __init__(self, config: Config, recorded: bool, sent: bool = False) -> None:
        """With `sent` the images are not stored on the device but sent step by step."""
        devices, source = open_devices(config), images_of(config.data)
        self.config, self.kinds, self.messages = config, step_kinds(config), list[str]()
        self.spec = build.build_spec(config, source)
        self.state, step_config = (
            build.build_state(config, self.spec, devices),
            build.build_step_config(config, devices),
        )
        batches = Batches(source.to(devices.device), config.data, config.seed)
        self.prefetcher = (
            Prefetcher(build._host_batches(source, config, slice(0, config.batch_size)), config.batch_size)
            if sent
            else None
        )
        eager_step = make_step(self.state, batches, step_config)
        self.step = (
            cuda_graph_step(eager_step, devices.device, 1, self.kinds, self.messages.append) if recorded else eager_step
        )
        self.trainer = Trainer(
            config,
            batches,
            step_config,
            self.step,
            Budget(config, devices.process_group, Clock()),
            None,
            prefetcher=self.prefetcher,
        )

    def advance(self, steps: int) -> torch.Tensor:
        """Train for `steps` steps; return their measurements, [steps, measure], on the CPU."""
        measured = []
        for _ in range(steps):
            self.state, numbers = run_step(self.trainer, self.state)
            measured.append(numbers)
        return torch.stack(measured).cpu()

    def tensors(self) -> Tensors:
        """Return copies of all tensors of the state, on the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in state_tensors(self.state).items()}

    def load(self, tensors: Tensors, images_seen: int) -> None:
        """Continue from saved tensors."""
        load_state_tensors(self.state, tensors)
        self.state = replace(self.state, images_seen=images_seen)

    def replays_every_kind(self) -> bool:
        """Return whether each kind of step is replayed from a CUDA graph by now."""
        return isinstance(self.step, CudaGraphStep) and set(self.step._graphs) == set(self.kinds)

    def close(self) -> None:
        """Close the prefetcher, if any."""
        if self.prefetcher is not None:
            self.prefetcher.close()


def cycle_of(config: Config) -> int:
    """Return the number of steps after which the kinds of steps repeat."""
    return math.lcm(config.objective.penalty_interval, config.n_critic)


def different_bits(ours: Tensors, theirs: Tensors) -> str:
    """Return a message about the first tensors that differ in any bit, or ""."""
    if ours.keys() != theirs.keys():
        return f"other tensors: {sorted(ours.keys() ^ theirs.keys())[:3]}"
    names = [name for name in ours if not same_bits(ours[name], theirs[name])]
    if not names:
        return ""
    largest = max(float((ours[name].double() - theirs[name].double()).abs().max()) for name in names)
    return f"{len(names)} of {len(ours)} tensors differ, by {largest:.3g} at most: {', '.join(names[:3])}"


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two tensors have the same type, shape and bits."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(*(tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)))
