"""Inputs of a step: one buffer, one copy, and the same numbers for any number of processes and microbatches."""

from dataclasses import replace

import pytest
import torch

from cardigan.config import Config
from cardigan.data.batches import Batches
from cardigan.experiment.build import build_source
from cardigan.overrides import override
from cardigan.recipes import config_for
from cardigan.training.devices import Devices
from cardigan.training.distributed import ProcessGroup
from cardigan.training.inputs import (
    ALIGNMENT,
    PER_IMAGE,
    StepInputs,
    pack,
    split_microbatches,
    step_inputs,
    to_device,
    unpack,
)

SMALL = {"batch_size": 8, "data.max_images": 64, "device": "cpu", "precision": "fp32"}
EVERYTHING = {
    "objective.penalties.dragan": 1.0,
    "objective.penalties.wgan_gp": 1.0,
    "augment.operations": "integer-translation",
    "augment.probability": 0.5,
}
CPU = Devices(torch.device("cpu"))


def small(**changes: object) -> Config:
    return override(config_for("mnist"), {**SMALL, **changes})


def batches_of(config: Config) -> Batches:
    return Batches(build_source(config), config.data, config.seed)


@pytest.mark.parametrize("changes", [{}, EVERYTHING], ids=["what mnist needs", "everything"])
def test_inputs_are_disjoint_views_of_one_buffer(changes):
    config = small(**changes)
    inputs = step_inputs(config, batches_of(config), 24, CPU)
    place, bounds = inputs.buffer.untyped_storage().data_ptr(), []
    for tensor in inputs[:-1]:
        assert tensor.untyped_storage().data_ptr() == place and tensor.data_ptr() % ALIGNMENT == place % ALIGNMENT
        bounds.append((tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes))
    filled = [each for each in bounds if each[0] != each[1]]
    assert all(end <= begin for (_, end), (begin, _) in zip(filled, filled[1:], strict=False))
    assert sum(tensor.nbytes for tensor in inputs[:-1]) <= inputs.buffer.nbytes


def test_pack_and_to_device_keep_values():
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(size, generator=generator) for size in ((3, 5), (), (0,), (7,), (2, 1, 3), (1,), (0,))]
    original = StepInputs(
        torch.arange(3), torch.randint(0, 256, (3, 1, 5, 7), dtype=torch.uint8), torch.arange(3), *values
    )
    for inputs in (pack(original, pinned=False), to_device(pack(original, pinned=False), torch.device("cpu"))):
        for actual, reference in zip(inputs[:-1], original[:-1], strict=True):
            assert actual.dtype == reference.dtype and torch.equal(actual, reference)
    on_meta = to_device(pack(original, pinned=False), torch.device("meta"))
    assert [tensor.shape for tensor in on_meta[:-1]] == [tensor.shape for tensor in original[:-1]] and on_meta.z.is_meta


def test_views_read_a_new_buffer_of_the_same_layout():
    """A recorded step does this: its views stay, the bytes in the buffer change."""
    config = small(**EVERYTHING)
    batches = batches_of(config)
    first, second = step_inputs(config, batches, 0, CPU), step_inputs(config, batches, 8, CPU)
    views = unpack(first.buffer.clone(), first)
    views.buffer.copy_(second.buffer)
    assert all(torch.equal(actual, reference) for actual, reference in zip(views[:-1], second[:-1], strict=True))
    assert not torch.equal(first.z, second.z)


def test_ranks_and_microbatches_share_the_batch_draws():
    config = small(**EVERYTHING)
    batches = batches_of(config)
    whole = step_inputs(config, batches, 16, CPU)
    for rank in range(2):
        rank_inputs = step_inputs(config, batches, 16, replace(CPU, process_group=ProcessGroup(rank, 2)))
        rows = slice(4 * rank, 4 * rank + 4)
        for name in PER_IMAGE:
            assert torch.equal(
                getattr(rank_inputs, name),
                getattr(whole, name)[rows] if getattr(whole, name).numel() else getattr(whole, name),
            )
    (_, whole_draws), parts = *split_microbatches(whole, batches, 1), split_microbatches(whole, batches, 4)
    assert [images.first for images, _ in parts] == [0, 2, 4, 6]
    assert [images.first for images, _ in split_microbatches(rank_inputs, batches, 2, rank=1)] == [4, 6]
    assert whole_draws.noise is not None and whole_draws.noise.shape == (8, 1, 32, 32)
    for name in ("z", "noise", "interpolation", "augment_real", "augment_fake"):
        assert torch.equal(torch.cat([getattr(draws, name) for _, draws in parts]), getattr(whole_draws, name))
