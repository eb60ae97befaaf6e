"""The monitor on synthetic runs: healthy, noisy, collapsing, flat."""

import math
import random

import pytest

from cardigan.health.monitor import Monitor
from cardigan.health.score_trend import ScoreTrend


def simulated_scores(kind: str, seed: int, noise: float = 0.03, length: int = 60) -> list[float]:
    """A synthetic run: its score falls from 100 to 10 and may get worse after 30 evaluations."""
    rng, values = random.Random(seed), []
    for index in range(length):
        steps_after_fault = max(0, index - 29)
        log = math.log(10) + math.log(10) * math.exp(-index / 8) + rng.gauss(0, noise)
        log += {"healthy": 0.0, "mode collapse": 1.5 * (steps_after_fault > 0), "decay": 0.05 * steps_after_fault}[kind]
        values.append(math.exp(log))
    return values


def stop_index(values: list[float]) -> int | None:
    trend = ScoreTrend()
    return next((index for index, value in enumerate(values) if trend.add(index, value)), None)


@pytest.mark.parametrize("seed", range(5))
def test_score_trend_detects_degrading_runs(seed):
    assert stop_index(simulated_scores("healthy", seed)) is None
    assert stop_index(simulated_scores("mode collapse", seed)) == 31  # the second bad evaluation
    assert 32 <= stop_index(simulated_scores("decay", seed)) <= 42  # between 10 % and 80 % worse


def test_one_bad_evaluation_does_not_stop():
    values = simulated_scores("healthy", 0)
    values[20] *= 20
    assert stop_index(values) is None
    values[21] *= 20
    assert stop_index(values) == 21


def test_noisier_run_needs_more_evidence():
    bad = [
        math.exp(0.3) * value if index >= 30 else value
        for index, value in enumerate(simulated_scores("healthy", 1, noise=0.001))
    ]
    noisy = [
        math.exp(0.3) * value if index >= 30 else value
        for index, value in enumerate(simulated_scores("healthy", 1, noise=0.12))
    ]
    assert stop_index(bad) == 31
    assert stop_index(noisy) is None or stop_index(noisy) > 32


def test_noisy_start_of_an_improving_run_is_not_a_collapse():
    """Few observations often miss how noisy a run is. Without a margin three of these runs are stopped."""
    stopped = []
    for seed in range(200):
        rng = random.Random(seed)
        values = [40 * math.exp(math.exp(-index / 6) + rng.gauss(0, 0.1)) for index in range(20)]
        stopped += [seed] if stop_index(values) is not None else []
    assert stopped == []


def test_score_faults_by_severity():
    for kind, name in (("mode collapse", "mode collapse"), ("decay", "partial mode collapse")):
        monitor = Monitor(has_scores=True)
        faults = [
            fault
            for index, value in enumerate(simulated_scores(kind, 0))
            for fault in monitor.observe(index, {"score": value})
        ]
        assert faults[0].name == name and faults[0].fatal
        assert faults[0].evidence["best_step"] == monitor.score_trend.best_step < faults[0].step


def test_plateau_reports_best_position():
    monitor = Monitor(has_scores=True)
    falling = [*range(100, 80, -1), *([81.5] * 30)]
    faults = [
        fault for index, value in enumerate(falling) for fault in monitor.observe(100 * index, {"score": float(value)})
    ]
    assert [fault.name for fault in faults] == ["plateau"]
    assert faults[0].evidence["best_step"] == 1900 and "best was at 1,900" in faults[0].message and not faults[0].fatal


HEALTHY = {
    "class_kl": 0.1,
    **{"discriminator_loss": 0.65, "generator_loss": 0.9, "d_real": 0.53, "d_fake": 0.47, "d_fake_after_update": 0.4},
    **{
        "discriminator_gradient_norm": 0.7,
        "generator_gradient_norm": 0.4,
        "diversity": 1.0,
        "duplicate_rate": 0.0,
        "holdout_gap": 0.1,
        "nearest_distance_ratio": 1.3,
    },
}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"diversity": 0.02}, "mode collapse"),
        ({"diversity": 0.4}, "partial mode collapse"),
        ({"duplicate_rate": 0.5}, "partial mode collapse"),
        ({"class_kl": 0.4}, "partial mode collapse"),
        ({"d_real": 0.999, "d_fake": 0.001}, "discriminator too strong"),
        ({"d_real": 0.3, "d_fake": 0.7}, "discriminator too weak"),
        ({"discriminator_loss": 30.0}, "divergence"),
        ({"holdout_gap": 0.8}, "discriminator overfitting"),
        ({"nearest_distance_ratio": 0.2}, "memorization"),
    ],
)
def test_rules_need_sustained_evidence(change, name):
    monitor = Monitor(has_scores=True)
    for index in range(30):
        assert not monitor.observe(1000 * index, HEALTHY)
    for index in range(30, 32):
        assert not monitor.observe(1000 * index, {**HEALTHY, **change})
    assert not monitor.observe(32_000, HEALTHY)
    faults = [fault.name for index in range(33, 40) for fault in monitor.observe(1000 * index, {**HEALTHY, **change})]
    assert faults[0] == name
    assert faults.count(name) == 1  # reported once


def test_non_finite_is_reported_at_once():
    (fault,) = Monitor(has_scores=False).observe(64, {**HEALTHY, "generator_loss": math.nan})
    assert fault.name == "non-finite" and fault.fatal


def test_loss_rules_are_overruled_by_score():
    rows = [{"discriminator_loss": 1.3, "generator_loss": 0.8}] * 20 + [
        {"discriminator_loss": 0.01, "generator_loss": 6.0}
    ] * 40
    for has_scores in (False, True):
        monitor = Monitor(has_scores)
        faults = [fault for index, row in enumerate(rows) for fault in monitor.observe(index, row)]
        assert [(fault.name, fault.fatal) for fault in faults] == [("discriminator too strong", not has_scores)]
