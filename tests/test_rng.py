"""Randomness as a pure function: keys, counters, and layers without a generator argument."""

import pytest
import torch
from scipy import stats
from torch import nn

from cardigan.data.batches import IndexSampler
from cardigan.data.source import image_spec
from cardigan.nets.table import build_networks
from cardigan.overrides import override
from cardigan.recipes import config_for
from cardigan.rng import counter_normal, stream, stream_keys, streams, use_generator


def splitmix64(state: int) -> int:
    """Return the output function of the paper (figure 13) in Python integers."""
    mask = 2**64 - 1
    z = state & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


@pytest.mark.parametrize("size", [1, 7, 100])  # PyTorch draws fewer than 16 normal numbers another way
def test_streams_draw_what_each_stream_draws(size):
    keys = [(seed, step) for seed in (0, 7, 2**63 - 1) for step in (0, 1, 2**40)]
    drawn = [
        (torch.randn(1, size, generator=each), torch.randint(10, (1,), generator=each))
        for each in streams("sample", keys)
    ]
    for (seed, step), (normal, integer) in zip(keys, drawn, strict=True):
        alone = stream(seed, "sample", step)
        assert torch.equal(normal, torch.randn(1, size, generator=alone))
        assert torch.equal(integer, torch.randint(10, (1,), generator=alone))


def test_counter_normal_is_quantiles_of_splitmix64():
    keys = stream_keys(3, stream(0, "noise", 0))
    normals = counter_normal(keys, 10)
    for row, key in enumerate(keys.tolist()):
        words = [splitmix64(key + (j + 1) * 0x9E3779B97F4A7C15) for j in range(3)]
        parts = [(word >> (16 * part)) & 0xFFFF for word in words for part in range(4)][:10]
        indices = [(part + 0x8000) % 0x10000 for part in parts]  # parts are signed numbers
        expected = torch.special.ndtri((torch.tensor(indices, dtype=torch.float64) + 0.5) / 0x10000).float()
        assert torch.equal(normals[row], expected)


def test_counter_normal_is_standard_normal_and_independent():
    normals = counter_normal(stream_keys(512, stream(1, "noise", 0)), 1024)
    assert stats.kstest(normals.flatten().double().numpy(), "norm").pvalue > 0.01
    count = normals.numel() ** 0.5
    for left, right in (
        (normals[:, 1:], normals[:, :-1]),
        (normals[1:], normals[:-1]),
        (normals[:, 4:], normals[:, :-4]),
    ):
        assert abs(float((left * right).mean())) < 4 / count


def test_row_depends_only_on_its_key():
    keys = stream_keys(8, stream(2, "noise", 0))
    whole = counter_normal(keys, 33)
    assert torch.equal(whole[3:5], counter_normal(keys[3:5], 33))
    assert not torch.equal(whole[0], whole[1])


def test_use_generator_replaces_the_global_generator():
    torch.manual_seed(5)
    expected = [torch.randn(4), nn.Conv2d(3, 4, 3).weight.detach(), torch.rand(2)]
    torch.manual_seed(99)
    before = torch.get_rng_state()
    with use_generator(torch.Generator().manual_seed(5)):
        normals = [torch.randn(4), nn.Conv2d(3, 4, 3).weight.detach(), torch.rand(2)]
    assert all(torch.equal(actual, reference) for actual, reference in zip(normals, expected, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("recipe", ["mnist", "sngan", "r3gan"])
def test_building_networks_keeps_global_generators(monkeypatch, recipe):
    """`torch.manual_seed` would also reseed the GPUs, without restoring their state."""
    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("the global generators were seeded"))
    config = override(config_for("mnist", recipe), {"generator.width": 8, "discriminator.width": 8})
    spec, before = image_spec(config.data, 10 if config.conditional else 0), torch.get_rng_state()
    first, second = build_networks(config, spec), build_networks(config, spec)
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(first, second, strict=True):
        assert all(
            torch.equal(actual, reference)
            for actual, reference in zip(one.parameters(), other.parameters(), strict=True)
        )


def test_index_sampler_slices_epochs():
    sampler = IndexSampler(10, seed=3)
    epochs = [torch.randperm(10, generator=stream(3, "order", epoch)) for epoch in range(5)]
    all_epochs = torch.cat(epochs)
    for images_seen, batch in ((0, 4), (8, 4), (7, 3), (9, 1), (6, 25), (20, 10)):
        assert torch.equal(sampler.indices_at(images_seen, batch), all_epochs[images_seen : images_seen + batch])


def test_batch_copies_only_its_own_indices(monkeypatch):
    """64 indices of a permutation of a million images must not copy the permutation."""
    sampler, copied = IndexSampler(1_000_000, seed=0), []
    sampler.indices_at(0, 64)
    cat = torch.cat
    monkeypatch.setattr(torch, "cat", lambda parts: copied.append(sum(len(part) for part in parts)) or cat(parts))
    sampler.indices_at(64, 64)
    sampler.indices_at(999_990, 64)
    assert copied == [64, 64]


def test_explicit_generator_is_used_inside_the_block():
    """What is fixed, such as calibration images, must not depend on a run's seed or take numbers from its stream."""
    fixed = torch.randn(3, generator=torch.Generator().manual_seed(1))
    alone = torch.randn(2, generator=torch.Generator().manual_seed(5))
    with use_generator(torch.Generator().manual_seed(5)):
        assert torch.equal(torch.randn(3, generator=torch.Generator().manual_seed(1)), fixed)
        assert torch.equal(torch.randn(2), alone)
