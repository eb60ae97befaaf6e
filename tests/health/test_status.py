"""Nothing reassuring is said of a run before it can be known."""

import pytest

from cardigan.health.monitor import Monitor
from cardigan.health.status import FATAL, NOTHING_FOUND, TOO_EARLY, WARNING, health_of_run, is_old
from cardigan.run.journal import Event


def progress(images_seen: int, **values: float) -> Event:
    return Event("progress", images_seen, 1.0, {"diversity": 0.9, **values})


@pytest.mark.parametrize(
    ("events", "state", "known_at"),
    [
        ([], TOO_EARLY, 20_000),
        ([progress(1_920, diversity=0.4)], TOO_EARLY, 20_000),
        ([progress(19_999)], TOO_EARLY, 20_000),
        ([progress(20_000)], NOTHING_FOUND, None),
        ([progress(20_000, diversity=0.4)], TOO_EARLY, 60_000),
        ([progress(60_000, diversity=0.4)], NOTHING_FOUND, None),
        ([Event("progress", 90_000, 1.0, {"discriminator_loss": 1.0})], TOO_EARLY, None),
        ([progress(30_000), Event("fault", 30_000, 1.0, {"name": "plateau", "fatal": False})], WARNING, None),
        ([Event("fault", 640, 1.0, {"name": "divergence", "fatal": True}), progress(700)], FATAL, None),
        (
            [Event("fault", 640, 1.0, {"name": "divergence", "fatal": True}), Event("rollback", 320, 1.0, {})],
            TOO_EARLY,
            20_000,
        ),
    ],
)
def test_health_states(events, state, known_at):
    status = health_of_run(events)
    assert (status.state, status.known_at) == (state, known_at)


def test_sentence_names_a_score_that_cannot_be_judged():
    scores = [Event("checkpoint", 10_000 * index, 1.0, {"score": 5.0}) for index in range(1, 5)]
    assert "evaluated 3 times; a trend needs 4" in health_of_run([progress(30_000), *scores[:3]]).sentence
    assert "trend" not in health_of_run([progress(40_000), *scores]).sentence


def test_old_numbers():
    assert is_old(6_592, 216_256)
    assert not is_old(200_000, 216_256)
    assert not is_old(0, 0)


def test_duplicates_of_a_run_that_was_never_diverse_are_a_fault():
    monitor = Monitor(has_scores=True)
    readings = [{"diversity": 0.7, "duplicate_rate": 0.45}] * 5
    assert not [fault for index, row in enumerate(readings) for fault in monitor.observe(1_000 * index, row)]
    faults = [fault.name for index, row in enumerate(readings) for fault in monitor.observe(60_000 + index, row)]
    assert faults == ["partial mode collapse"]
