"""What a CPU can prove about steps on a GPU: no value is read, no random number sampled, no host tensor used.

Tests every recipe, option and kind of step in small, and that steps can be recorded.
"""

from collections.abc import Iterator
from functools import cache

import pytest
import torch
from torch.optim import optimizer

from cardigan.config import Config
from cardigan.data import datasets
from cardigan.data.batches import Batches
from cardigan.experiment.build import build_source, build_spec, build_state, build_step_config
from cardigan.nets import convolution
from cardigan.recipes import RECIPES, config_for
from cardigan.rng import counter_normal
from cardigan.training.devices import Devices
from cardigan.training.inputs import step_inputs, to_device
from cardigan.training.loop import make_step, set_learning_rates
from cardigan.training.schedule import step_kind, step_kinds
from cardigan.training.state import state_tensors
from op_modes import NoHostReads, OnlyOn, Tape
from variations import SMALL, VARIATIONS, reduced

TINY = {
    **SMALL,
    "batch_size": 8,
    "generator.width": 4,
    "discriminator.width": 4,
    "data.max_images": 64,
    "precision": "fp32",
    "device": "cpu",
}


def small(recipe: str, changes: dict[str, object]) -> Config:
    source = "stacked-mnist" if recipe == "stacked-mnist" else "mnist"
    return reduced(config_for(source, recipe), {**TINY, **changes, "precision": "fp32"})


CASES = {
    **{f"recipe {recipe}": (recipe, {}) for recipe in sorted(RECIPES)},
    **{name: ("mnist", changes) for name, changes in VARIATIONS.items() if not name.startswith("precision")},
}


@pytest.fixture(params=CASES, ids=list(CASES))
def config(request: pytest.FixtureRequest) -> Config:
    return small(*CASES[request.param])


@pytest.fixture(autouse=True)
def like_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the branches for asynchronous devices, with explicit gradients of convolutions."""
    monkeypatch.setattr(Devices, "is_async", True)
    monkeypatch.setattr(
        convolution,
        "_use_explicit_gradients",
        lambda layer, x, weight, bias: torch.is_grad_enabled() and weight.requires_grad,
    )


class MetaDevices(Devices):
    """The meta device has no values, so that reading one fails. It has no autocast either; fp32 needs none."""

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", enabled=False)


@pytest.fixture(autouse=True, scope="module")
def cached_datasets() -> Iterator[None]:
    """Load the digits once for all cases."""
    with pytest.MonkeyPatch.context() as patch:
        for name, read in datasets.BUILTIN_DATASETS.items():
            patch.setitem(datasets.BUILTIN_DATASETS, name, cache(read))
        yield


class Training:
    """A training run whose steps a test runs one by one."""

    def __init__(self, config: Config, devices: Devices) -> None:
        source = build_source(config)
        self.config, self.devices = config, devices
        self.state = build_state(config, build_spec(config, source), devices)
        self.batches = Batches(source.to(devices.device), config.data, config.seed)
        self.step_function = make_step(self.state, self.batches, build_step_config(config, devices))

    def inputs(self, step: int):
        images_seen = step * self.config.batch_size
        set_learning_rates(self.state.networks, self.config, images_seen)
        return to_device(step_inputs(self.config, self.batches, images_seen, self.devices), self.devices.device)

    def kind(self, step: int):
        return step_kind(self.config, step * self.config.batch_size)

    def step(self, number: int) -> torch.Tensor:
        return self.step_function(self.inputs(number), self.kind(number))

    def steps_of_each_kind(self, first: int) -> list[int]:
        """Return the first step number from `first` on for each kind of step."""
        numbers = range(first, first + 1000)
        return [next(number for number in numbers if self.kind(number) == kind) for kind in step_kinds(self.config)]

    def tensors(self) -> dict[str, torch.Tensor]:
        return state_tensors(self.state)


def test_step_reads_no_value_and_uses_no_host_tensor(config, monkeypatch):
    """The meta device has no values, and a host tensor in any operation fails."""
    monkeypatch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: ["meta"])
    with monkeypatch.context() as patch:
        patch.setattr(Devices, "is_async", False)  # Adam's constructor reads the value of a tensor learning rate
        training = Training(config, MetaDevices(torch.device("meta")))
    for adam in (training.state.networks.generator_optimizer, training.state.networks.discriminator_optimizer):
        adam.param_groups[0].update(lr=torch.empty((), device="meta"), capturable=True)
    counter_normal(torch.zeros(1, dtype=torch.long, device="meta"), 4)  # its table is computed once, on the host
    for number in training.steps_of_each_kind(0):
        inputs, kind = training.inputs(number), training.kind(number)
        with OnlyOn("meta"):
            assert training.step_function(inputs, kind).is_meta


def test_recorded_step_gives_the_same_bits(config):
    """Each kind of step runs once eagerly, once recorded on a tape, and once replayed with other inputs and rates.

    On the CPU, with the optimizer's branch for GPUs. A recorded step reads no value, samples no random number and uses
    no boolean mask. No tensor of the state changes its address. Metrics and tensors have the bits of training without
    tapes.
    """
    recorded, eager = (Training(config, Devices(torch.device("cpu"))) for _ in range(2))
    numbers, rounds = [], 3
    for _ in range(rounds):
        numbers += recorded.steps_of_each_kind(max(numbers, default=-1) + 1)
    static_inputs, tapes, addresses = recorded.inputs(0), {}, []
    for position, number in enumerate(numbers):
        static_inputs.buffer.copy_(recorded.inputs(number).buffer)
        kind = recorded.kind(number)
        if position < len(numbers) / rounds:
            metrics = recorded.step_function(static_inputs, kind)
        elif kind in tapes:
            tape, metrics = tapes[kind]
            tape.replay()
        else:
            addresses.append({name: tensor.data_ptr() for name, tensor in recorded.tensors().items()})
            with NoHostReads(), Tape() as tape:
                metrics = recorded.step_function(static_inputs, kind)
            tapes[kind] = tape, metrics
        assert metrics.isfinite().all()
        assert torch.equal(metrics, eager.step(number)), number
    assert len(tapes) == len(step_kinds(config))
    after = recorded.tensors()
    assert all(pointers == {name: tensor.data_ptr() for name, tensor in after.items()} for pointers in addresses)
    assert all(torch.equal(after[name], tensor) for name, tensor in eager.tensors().items())


@pytest.mark.parametrize(
    ("message", "step"),
    [
        ("reads values", lambda x: x * x.sum().item()),
        ("reads values", lambda x: x if x.sum() > 0 else -x),
        ("draws random numbers", lambda x: x + torch.randn(3)),
        ("boolean mask", lambda x: x[x > 0]),
    ],
)
def test_no_host_reads_detects(message, step):
    with NoHostReads(), pytest.raises(AssertionError, match=message):
        step(torch.ones(3))


def test_only_on_detects_host_tensor():
    with OnlyOn("meta"), pytest.raises(AssertionError, match="has a tensor on cpu"):
        torch.empty(3, device="meta") * torch.tensor(2.0)


def test_tape_keeps_python_numbers_constant():
    """A Python number that was read during recording keeps its value in a replay."""
    x, y = torch.ones(3), torch.ones(3)
    with Tape() as tape:
        right, frozen = x * y[0], x * float(2 * y[0])
    y.fill_(5)
    tape.replay()
    assert right.tolist() == [5.0] * 3 and frozen.tolist() == [2.0] * 3
