"""Gradient steps and schedules: only one network is updated, with any memory layout of the gradients."""

import copy
import math

import pytest
import torch

import cardigan
from cardigan.config_parts import AugmentConfig, EmaConfig, OptimizerConfig
from cardigan.errors import CardiganError
from cardigan.rng import stream
from cardigan.training.devices import Devices
from cardigan.training.schedule import LEARNING_RATE_SCHEDULES, augment_probability, ema_weight, is_due, learning_rate
from cardigan.training.updates import apply_gradients

DEVICES = Devices(torch.device("cpu"))


def test_fused_adam_updates_right_weights_after_penalty():
    """A double backward gives contiguous gradients for channels-last weights; fused Adam reads both as raw memory."""
    fused = torch.nn.Conv2d(3, 8, 4).to(memory_format=torch.channels_last)
    plain = copy.deepcopy(fused)
    images = torch.randn(4, 3, 8, 8, requires_grad=True)

    def penalty(network):
        (input_gradient,) = torch.autograd.grad(network(images).sigmoid().sum(), images, create_graph=True)
        return input_gradient.square().sum()

    (gradient,) = torch.autograd.grad(penalty(fused), [fused.weight])
    assert gradient.stride() != fused.weight.stride()  # otherwise this test proves nothing
    apply_gradients(fused, torch.optim.Adam(fused.parameters(), lr=0.1, fused=True), [penalty(fused)], 1, DEVICES)
    apply_gradients(
        plain, torch.optim.Adam(plain.parameters(), lr=0.1, fused=False, foreach=False), [penalty(plain)], 1, DEVICES
    )
    assert torch.allclose(fused.weight, plain.weight, atol=1e-5)


def test_only_one_network_is_updated():
    network, opponent = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    before = copy.deepcopy(network.weight), copy.deepcopy(opponent.weight)
    apply_gradients(
        network, torch.optim.SGD(network.parameters(), lr=0.1), [opponent(network(torch.ones(1, 2))).sum()], 1, DEVICES
    )
    assert not torch.equal(network.weight, before[0])
    assert torch.equal(opponent.weight, before[1])
    assert all(parameter.grad is None for parameter in [*network.parameters(), *opponent.parameters()])


def test_learning_rate_schedule():
    config = OptimizerConfig(learning_rate=1.0, warmup_images=100, decay_start_images=400)
    assert learning_rate(config, 0) == pytest.approx(0.01)
    assert learning_rate(config, 49) == pytest.approx(0.5)
    assert learning_rate(config, 100) == learning_rate(config, 400) == 1.0
    assert learning_rate(config, 1600) == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(3))
def test_default_schedule_gives_the_same_bits_as_before_it_had_a_name(seed):
    random = stream(seed, "rates", 0)
    for warmup, start in torch.randint(0, 1000, (200, 2), generator=random).tolist():
        config = OptimizerConfig(learning_rate=1e-3 / 3, warmup_images=min(warmup, start), decay_start_images=start)
        images_seen = int(torch.randint(0, 3000, (), generator=random))
        expected = config.learning_rate
        if images_seen < config.warmup_images:
            expected *= (images_seen + 1) / config.warmup_images
        if start and images_seen > start:
            expected *= math.sqrt(start / images_seen)
        assert learning_rate(config, images_seen) == expected


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("inverse_sqrt", [1, 1, 0.5**0.5, 1 / 3**0.5, 0.5, 0.2**0.5]),
        ("linear", [1, 1, 2 / 3, 1 / 3, 0, 0]),
        ("cosine", [1, 1, 0.75, 0.25, 0, 0]),
        ("constant", [1, 1, 1, 1, 1, 1]),
    ],
)
def test_schedules_by_name(schedule, expected):
    start = 0 if schedule == "constant" else 400
    end = 1600 if schedule in {"linear", "cosine"} else 0
    config = OptimizerConfig(learning_rate=0.5, schedule=schedule, decay_start_images=start, decay_end_images=end)
    rates = [learning_rate(config, images_seen) for images_seen in (0, 400, 800, 1200, 1600, 2000)]
    assert rates == pytest.approx([0.5 * factor for factor in expected])


def test_warmup_multiplies_every_schedule():
    config = OptimizerConfig(learning_rate=1.0, schedule="linear", warmup_images=100, decay_end_images=200)
    assert learning_rate(config, 49) == pytest.approx(0.5 * (1 - 49 / 200))


def test_added_schedule_is_found_and_unknown_one_refused(monkeypatch):
    with pytest.raises(CardiganError, match="Unknown schedule 'cosin': did you mean 'cosine'"):
        learning_rate(OptimizerConfig(schedule="cosin"), 0)
    monkeypatch.setitem(LEARNING_RATE_SCHEDULES, "cosin", lambda config, images_seen: 1 / (1 + images_seen))
    assert learning_rate(OptimizerConfig(schedule="cosin", learning_rate=1.0), 3) == 0.25


def test_ema_half_life():
    config = EmaConfig(half_life_images=1000, rampup_ratio=0.0)
    influence = 1.0
    for _ in range(10):
        influence *= 1 - ema_weight(config, 100_000, batch_size=100)
    assert influence == pytest.approx(0.5)
    assert ema_weight(EmaConfig(half_life_images=0), 100, 64) == 1.0
    assert ema_weight(EmaConfig(half_life_images=1000, rampup_ratio=0.1), 640, 64) == pytest.approx(0.5)


def test_delayed_augmentation():
    config = AugmentConfig(operations="translation", probability=0.5, start_images=100)
    assert [augment_probability(config, seen) for seen in (0, 100, 150, 200, 1000)] == [0, 0, 0.25, 0.5, 0.5]
    assert augment_probability(AugmentConfig(operations="translation", probability=0.5), 0) == 0.5
    for wrong in ({"operations": "translation", "target": 0.6}, {}):
        with pytest.raises(CardiganError, match=r"start_images is 100, which delays a fixed probability"):
            AugmentConfig(start_images=100, **wrong)


def test_journal_shows_a_delayed_augmentation_rise(tmp_path):
    overrides = {"augment.operations": "translation", "augment.probability": 1.0, "augment.start_images": 32}
    small = {"batch_size": 16, "generator.width": 4, "discriminator.width": 4, "checkpoint_every_images": 16}
    run = cardigan.train("mnist", out=tmp_path / "run", images=80, overrides={**overrides, **small})
    values = [
        event.values.get("augment_probability")
        for event in cardigan.read_events(run.path / "journal.jsonl")
        if event.kind == "progress"
    ]
    assert values == [0, 0, 0, 0.5, 1]


def test_intervals_do_not_depend_on_batch_size():
    assert [after for after in range(48, 500, 48) if is_due(100, after - 48, after)] == [144, 240, 336, 432]
