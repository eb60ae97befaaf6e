"""Randomness as a pure function: keys, counters, and layers that draw without being given a generator."""

import pytest
import torch
from scipy import stats
from torch import nn

from cardigan.config import override
from cardigan.data.batches import IndexSampler
from cardigan.data.source import image_spec
from cardigan.nets.table import build_networks
from cardigan.recipes import config_for
from cardigan.rng import counter_normal, stream, stream_keys, use_generator


def splitmix64(state: int) -> int:
    """Return the output function of the paper (figure 13) in whole numbers of Python's."""
    mask = 2**64 - 1
    z = state & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_counter_normals_are_quantiles_chosen_by_splitmix64():
    keys = stream_keys(3, stream(0, "noise", 0))
    drawn = counter_normal(keys, 10)
    for row, key in enumerate(keys.tolist()):
        words = [splitmix64(key + (j + 1) * 0x9E3779B97F4A7C15) for j in range(3)]
        parts = [(word >> (16 * part)) & 0xFFFF for word in words for part in range(4)][:10]
        places = [(part + 0x8000) % 0x10000 for part in parts]  # a part is read as a signed number
        expected = torch.special.ndtri((torch.tensor(places, dtype=torch.float64) + 0.5) / 0x10000).float()
        assert torch.equal(drawn[row], expected)


def test_counter_normals_are_standard_normal_and_independent():
    drawn = counter_normal(stream_keys(512, stream(1, "noise", 0)), 1024)
    assert stats.kstest(drawn.flatten().double().numpy(), "norm").pvalue > 0.01
    count = drawn.numel() ** 0.5
    for left, right in ((drawn[:, 1:], drawn[:, :-1]), (drawn[1:], drawn[:-1]), (drawn[:, 4:], drawn[:, :-4])):
        assert abs(float((left * right).mean())) < 4 / count


def test_each_row_depends_on_its_key_alone():
    keys = stream_keys(8, stream(2, "noise", 0))
    whole = counter_normal(keys, 33)
    assert torch.equal(whole[3:5], counter_normal(keys[3:5], 33))
    assert not torch.equal(whole[0], whole[1])


def test_layers_draw_from_the_given_generator_and_from_nothing_else():
    torch.manual_seed(5)
    expected = [torch.randn(4), nn.Conv2d(3, 4, 3).weight.detach(), torch.rand(2)]
    torch.manual_seed(99)
    before = torch.get_rng_state()
    with use_generator(torch.Generator().manual_seed(5)):
        drawn = [torch.randn(4), nn.Conv2d(3, 4, 3).weight.detach(), torch.rand(2)]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(drawn, expected, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("recipe", ["mnist", "sngan", "r3gan"])
def test_building_networks_touches_no_global_generator(monkeypatch, recipe):
    """`torch.manual_seed` would reseed the GPUs too, and nothing would put their state back."""
    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("the global generators were seeded"))
    config = override(config_for("mnist", recipe), {"generator.width": 8, "discriminator.width": 8})
    spec, before = image_spec(config.data, 10 if config.conditional else 0), torch.get_rng_state()
    first, second = build_networks(config, spec), build_networks(config, spec)
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(one.parameters(), other.parameters(), strict=True))


def test_an_order_gives_slices_of_its_epochs():
    order = IndexSampler(10, seed=3)
    epochs = [torch.randperm(10, generator=stream(3, "order", epoch)) for epoch in range(5)]
    endless = torch.cat(epochs)
    for images_seen, batch in ((0, 4), (8, 4), (7, 3), (9, 1), (6, 25), (20, 10)):
        assert torch.equal(order.indices_at(images_seen, batch), endless[images_seen : images_seen + batch])


def test_a_batch_copies_no_more_than_itself(monkeypatch):
    """The permutation of a million images must not be copied to take 64 of it."""
    order, copied = IndexSampler(1_000_000, seed=0), []
    order.indices_at(0, 64)
    cat = torch.cat
    monkeypatch.setattr(torch, "cat", lambda parts: copied.append(sum(len(part) for part in parts)) or cat(parts))
    order.indices_at(64, 64)
    order.indices_at(999_990, 64)
    assert copied == [64, 64]
