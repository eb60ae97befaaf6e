"""The reaction of a run to faults: warn, stop, roll back with halved learning rates, run out of patience."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scripted_scores import IMPROVING_SCORES, degrading_scores, train_with_scores

import cardigan
from cardigan.run.checkpoint import list_checkpoints, load_latest_checkpoint, read_checkpoint_metadata
from cardigan.run.journal import read_events

TRAINING_SCRIPT = Path(__file__).with_name("scripted_scores.py")


def learning_rate_factor(out: Path) -> float:
    latest = load_latest_checkpoint(out / "checkpoints")
    assert latest is not None
    return latest[1].learning_rate_factor


def test_warn_changes_nothing(tmp_path):
    run = train_with_scores(tmp_path / "run", degrading_scores(), images=480)
    assert (run.stopped_by, run.images_seen, learning_rate_factor(run.path)) == ("images", 480, 1.0)
    fatal_faults = [
        event for event in read_events(run.path / "journal.jsonl") if event.kind == "fault" and event.values["fatal"]
    ]
    assert [(event.images_seen, event.values["name"]) for event in fatal_faults] == [(224, "mode collapse")]
    unaffected = train_with_scores(tmp_path / "untroubled", {}, images=480)
    assert (run.path / "generator.safetensors").read_bytes() == (unaffected.path / "generator.safetensors").read_bytes()


def test_stop_keeps_best(tmp_path):
    run = train_with_scores(tmp_path / "run", degrading_scores(), images=480, on_failure="stop")
    assert (run.stopped_by, run.images_seen) == ("failure", 224)
    assert cardigan.load(run.path).images_seen == 160
    last = read_events(run.path / "journal.jsonl")[-1]
    assert last.values == {"reason": "failure", "best_images_seen": 160}


def test_patience_keeps_best(tmp_path):
    run = train_with_scores(
        tmp_path / "run", {at: [score] for at, score in IMPROVING_SCORES.items()}, images=960, patience_images=128
    )
    assert (run.stopped_by, run.images_seen) == ("patience", 288)  # 55 never beats the 50 of 160
    assert cardigan.load(run.path).images_seen == 160


def test_patience_waits_for_next_score(tmp_path):
    """Checkpoints are 32 images apart. With less patience the run continues until the first score that is no better."""
    run = train_with_scores(
        tmp_path / "run", {at: [score] for at, score in IMPROVING_SCORES.items()}, images=960, patience_images=1
    )
    assert (run.stopped_by, run.images_seen) == ("patience", 192)


def test_target_stops_at_the_second_score_in_a_row(tmp_path):
    scores = {
        at: [value] for at, value in zip(range(32, 257, 32), (9.0, 5.0, 7.0, 5.0, 4.0, 4.0, 3.0, 3.0), strict=True)
    }
    run = train_with_scores(tmp_path / "run", scores, images=960, target_score=5.0)
    assert (run.stopped_by, run.images_seen) == ("target", 160)  # 5 at 64 was followed by 7
    assert cardigan.load(run.path).images_seen == 160
    seconds = [
        event.values["evaluation_seconds"]
        for event in read_events(run.path / "journal.jsonl")
        if "score" in event.values
    ]
    assert len(seconds) >= 5 and all(value >= 0 for value in seconds)


def test_rollback_halves_learning_rates_and_resume_is_bit_exact(tmp_path):
    whole = train_with_scores(tmp_path / "whole", degrading_scores(), images=480, on_failure="rollback")
    assert (whole.stopped_by, whole.images_seen, learning_rate_factor(whole.path)) == ("images", 480, 0.5)
    events = read_events(whole.path / "journal.jsonl")
    (rollback,) = [event for event in events if event.kind == "rollback"]
    assert (
        rollback.images_seen,
        rollback.values["rolled_back_from"],
        rollback.values["learning_rate_factor"],
        rollback.values["fault"],
    ) == (
        160,
        224,
        0.5,
        "mode collapse",
    )
    assert [event.images_seen for event in events] == sorted(event.images_seen for event in events)

    unaffected = train_with_scores(tmp_path / "untroubled", {}, images=480, on_failure="rollback")
    assert (unaffected.path / "generator.safetensors").read_bytes() != (
        whole.path / "generator.safetensors"
    ).read_bytes()

    train_with_scores(tmp_path / "broken", degrading_scores(), images=320, on_failure="rollback")
    resumed = train_with_scores(tmp_path / "broken", {}, images=480, resume=True, on_failure="rollback")
    resumed_state, whole_state = (load_latest_checkpoint(run.path / "checkpoints") for run in (resumed, whole))
    assert resumed_state is not None and whole_state is not None and resumed_state[0].keys() == whole_state[0].keys()
    assert all(torch.equal(resumed_state[0][name], value) for name, value in whole_state[0].items())
    assert (resumed.path / "generator.safetensors").read_bytes() == (whole.path / "generator.safetensors").read_bytes()


def test_resume_after_rollback_keeps_halved_learning_rates(tmp_path):
    run = train_with_scores(tmp_path / "run", degrading_scores(), images=480, on_failure="rollback")
    for path in list_checkpoints(run.path / "checkpoints"):
        metadata, _ = read_checkpoint_metadata(path)
        assert metadata.learning_rate_factor == (0.5 if metadata.images_seen >= 160 else 1.0)


def test_stops_after_three_rollbacks(tmp_path):
    scores = {**degrading_scores(), 192: [600.0] * 9, 224: [600.0] * 9}
    run = train_with_scores(tmp_path / "run", scores, images=480, on_failure="rollback")
    assert (run.stopped_by, run.images_seen) == ("failure", 224)
    assert cardigan.load(run.path).images_seen == 160
    assert learning_rate_factor(run.path) == 0.125


@pytest.mark.parametrize(("on_failure", "images", "expected"), [("stop", 240, 1.0), ("rollback", 480, 0.5)])
def test_two_processes_agree_on_policy(tmp_path, on_failure, images, expected):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(TRAINING_SCRIPT),
        str(tmp_path / "run"),
        on_failure,
    ]
    process = subprocess.run(  # noqa: PLW1510 - the assertion shows its output
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert process.returncode == 0, process.stderr
    last_checkpoint = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    assert int(last_checkpoint.name) == images  # one step later than with one process
    assert learning_rate_factor(tmp_path / "run") == expected
