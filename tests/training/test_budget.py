"""A budget of minutes: training gets at least half of it, and evaluations give way."""

import time
from dataclasses import replace

import pytest

import cardigan
from cardigan.config import Config
from cardigan.errors import CardiganError
from cardigan.experiment import build, training_run
from cardigan.run.journal import read_events
from cardigan.training import recorder
from cardigan.training.budget import Budget, Clock, Reserve
from cardigan.training.distributed import ProcessGroup

SMALL = {"batch_size": 16, "generator.width": 4, "discriminator.width": 4, "device": "cpu", "precision": "fp32"}


def budget_after(elapsed: float, trained: float, earlier: float = 0.0) -> Budget:
    """Return the budget of two minutes of a run that has trained for the last `trained` seconds."""
    clock = Clock(time.monotonic() - elapsed + earlier, earlier)
    budget = Budget(Config(minutes=2.0), ProcessGroup(), clock)
    budget.training_started_at = elapsed - trained
    return budget


@pytest.mark.parametrize(
    ("elapsed", "trained", "reserve", "expected"),
    [
        (53.0, 0.0, Reserve(68.0, 2.0), ""),  # an evaluation takes so long that nothing would be left for training
        (53.0 + 59.0, 59.0, Reserve(68.0, 2.0), ""),
        (53.0 + 61.0, 61.0, Reserve(68.0, 2.0), "minutes"),
        (53.0 + 61.0, 61.0, Reserve(68.0, 2.0, evaluation_seconds=5.0), ""),  # five of them were an evaluation
        (100.0, 90.0, Reserve(10.0, 2.0), ""),
        (111.0, 90.0, Reserve(10.0, 2.0), "minutes"),
        (119.0, 20.0, Reserve(68.0, 2.0), "minutes"),  # the last checkpoint is always saved in time
    ],
)
def test_training_gets_half_of_the_budget(elapsed, trained, reserve, expected):
    assert budget_after(elapsed, trained).stop_reason(64, reserve) == expected


def test_time_before_a_resume_counts_as_training():
    assert budget_after(80.0, 5.0, earlier=60.0).stop_reason(64, Reserve(68.0, 2.0)) == "minutes"


def test_evaluation_gives_way_and_says_so(tmp_path, monkeypatch):
    """An evaluation would take longer than the whole budget."""
    original = build.build_callbacks

    def evaluate(snapshot) -> dict[str, float]:
        raise AssertionError("there is no time for it")

    monkeypatch.setattr(
        build,
        "build_callbacks",
        lambda *arguments: replace(original(*arguments), evaluate=evaluate, evaluation_seconds=lambda snapshot: 100.0),
    )
    run = cardigan.train("mnist", out=tmp_path / "run", minutes=0.4, overrides=SMALL)
    assert (run.stopped_by, run.images_seen > 0) == ("minutes", True)
    events = read_events(run.path / "journal.jsonl")
    notes = [message for event in events if event.kind == "note" for message in event.values["messages"]]
    assert sum("is not evaluated" in note for note in notes) == 1
    last = [event for event in events if event.kind == "checkpoint"][-1]
    assert last.images_seen == run.images_seen and "score" not in last.values
    assert "Not evaluated yet" in (run.path / "report.html").read_text()


def test_run_without_a_step_is_an_error(tmp_path):
    with pytest.raises(CardiganError, match=r"spent before the first step.*--minutes"):
        cardigan.train("mnist", out=tmp_path / "run", minutes=0.0001, overrides=SMALL)
    assert (tmp_path / "run" / "checkpoints" / "00000000" / "state.json").exists()


@pytest.mark.parametrize(("measured", "expected"), [(1e9, 1), (1.0, 0), (None, 0)])
def test_run_slower_than_measured_says_so_once(tmp_path, monkeypatch, measured, expected):
    monkeypatch.setattr(recorder, "PROGRESS_SECONDS", 0.0)
    original = training_run.Recorder
    monkeypatch.setattr(training_run, "Recorder", lambda *arguments: original(*arguments[:-1], measured))
    run = cardigan.train("mnist", out=tmp_path / "run", images=160, overrides=SMALL)
    notes = [event.values["messages"] for event in read_events(run.path / "journal.jsonl") if event.kind == "note"]
    assert sum("slower than measured" in message for messages in notes for message in messages) == expected
