"""What a run does about its faults: warns, stops, goes back to its best with halved learning rates, loses patience."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scripted import FALLING, going_bad, train_with_scores

import cardigan
from cardigan.run.checkpoint import latest_checkpoint, list_checkpoints, read_checkpoint_facts
from cardigan.run.journal import read_events

SCRIPT = Path(__file__).with_name("scripted.py")


def factor(out: Path) -> float:
    found = latest_checkpoint(out / "checkpoints")
    assert found is not None
    return found[1].learning_rate_factor


def test_warning_changes_nothing(tmp_path):
    run = train_with_scores(tmp_path / "run", going_bad(), images=480)
    assert (run.stopped_by, run.images_seen, factor(run.path)) == ("images", 480, 1.0)
    told = [event for event in read_events(run.path / "journal.jsonl") if event.kind == "fault" and event.values["grave"]]
    assert [(event.images_seen, event.values["name"]) for event in told] == [(224, "collapse")]
    untroubled = train_with_scores(tmp_path / "untroubled", {}, images=480)
    assert (run.path / "generator.safetensors").read_bytes() == (untroubled.path / "generator.safetensors").read_bytes()


def test_stopping_keeps_the_best(tmp_path):
    run = train_with_scores(tmp_path / "run", going_bad(), images=480, health="stop")
    assert (run.stopped_by, run.images_seen) == ("health", 224)
    assert cardigan.load(run.path).images_seen == 160
    last = read_events(run.path / "journal.jsonl")[-1]
    assert last.values == {"reason": "health", "kept": 160}


def test_patience_keeps_the_best(tmp_path):
    run = train_with_scores(tmp_path / "run", {at: [score] for at, score in FALLING.items()}, images=960, patience=128)
    assert (run.stopped_by, run.images_seen) == ("patience", 288)  # 55 never beats the 50 of 160
    assert cardigan.load(run.path).images_seen == 160


def test_patience_waits_for_the_next_judgement(tmp_path):
    """Checkpoints are 32 images apart: with less patience than that the run goes on to the first one that is no better."""
    run = train_with_scores(tmp_path / "run", {at: [score] for at, score in FALLING.items()}, images=960, patience=1)
    assert (run.stopped_by, run.images_seen) == ("patience", 192)


def test_rollback_halves_the_learning_rates_and_resumes_bit_for_bit(tmp_path):
    whole = train_with_scores(tmp_path / "whole", going_bad(), images=480, health="rollback")
    assert (whole.stopped_by, whole.images_seen, factor(whole.path)) == ("images", 480, 0.5)
    events = read_events(whole.path / "journal.jsonl")
    (back,) = [event for event in events if event.kind == "rollback"]
    assert (back.images_seen, back.values["left_at"], back.values["learning_rate_factor"], back.values["fault"]) == (160, 224, 0.5, "collapse")
    assert [event.images_seen for event in events] == sorted(event.images_seen for event in events)

    untroubled = train_with_scores(tmp_path / "untroubled", {}, images=480, health="rollback")
    assert (untroubled.path / "generator.safetensors").read_bytes() != (whole.path / "generator.safetensors").read_bytes()

    train_with_scores(tmp_path / "broken", going_bad(), images=320, health="rollback")
    resumed = train_with_scores(tmp_path / "broken", {}, images=480, resume=True, health="rollback")
    ours, theirs = (latest_checkpoint(run.path / "checkpoints") for run in (resumed, whole))
    assert ours is not None and theirs is not None and ours[0].keys() == theirs[0].keys()
    assert all(torch.equal(ours[0][name], value) for name, value in theirs[0].items())
    assert (resumed.path / "generator.safetensors").read_bytes() == (whole.path / "generator.safetensors").read_bytes()


def test_resuming_right_after_a_rollback_starts_with_the_halved_rates(tmp_path):
    run = train_with_scores(tmp_path / "run", going_bad(), images=480, health="rollback")
    for path in list_checkpoints(run.path / "checkpoints"):
        facts, _ = read_checkpoint_facts(path)
        assert facts.learning_rate_factor == (0.5 if facts.images_seen >= 160 else 1.0)


def test_after_three_rollbacks_it_stops(tmp_path):
    scores = {**going_bad(), 192: [600.0] * 9, 224: [600.0] * 9}
    run = train_with_scores(tmp_path / "run", scores, images=480, health="rollback")
    assert (run.stopped_by, run.images_seen) == ("health", 224)
    assert cardigan.load(run.path).images_seen == 160
    assert factor(run.path) == 0.125


@pytest.mark.parametrize(("health", "images", "expected"), [("stop", 240, 1.0), ("rollback", 480, 0.5)])
def test_two_processes_decide_alike(tmp_path, health, images, expected):
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT), str(tmp_path / "run"), health]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})  # noqa: PLW1510
    assert done.returncode == 0, done.stderr
    assert int(list_checkpoints(tmp_path / "run" / "checkpoints")[-1].name) == images  # one step later than a single process would
    assert factor(tmp_path / "run") == expected
