"""A small run with every kind of event, to send to trackers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from cardigan.run.journal import Event, Journal
from tiny_runs import small_run, small_snapshot

FIRST_EVENTS = [
    Event("start", 0, 0.0, {"run": "x", "messages": ["started on digits"]}),
    Event("samples", 32, 1.0, {"file": "samples/00000032.png", "num_samples": 4}),
    Event("progress", 32, 1.0, {"discriminator_loss": 0.7, "generator_loss": 0.8, "images_per_second": 50.0}),
    Event("progress", 64, 2.0, {"discriminator_loss": 0.6, "generator_loss": 0.9, "images_per_second": 52.0}),
    Event("fault", 64, 2.0, {"name": "plateau", "fatal": False, "message": "no progress", "advice": "Stop it."}),
    Event("checkpoint", 64, 2.5, {"score": 12.5, "score_standard_error": 0.5}),
]
LATER_EVENTS = [
    Event("resume", 64, 2.5, {"run": "x", "messages": ["resumed"]}),
    Event("progress", 96, 3.5, {"discriminator_loss": 0.5, "generator_loss": 1.0, "images_per_second": 51.0}),
    Event("stop", 96, 4.0, {"reason": "images"}),
]
SCALARS = {
    "discriminator_loss": [(32, 0.7), (64, 0.6), (96, 0.5)],
    "generator_loss": [(32, 0.8), (64, 0.9), (96, 1.0)],
    "images_per_second": [(32, 50.0), (64, 52.0), (96, 51.0)],
    "score": [(64, 12.5)],
}
"""What a tracker has of `FIRST_EVENTS` and `LATER_EVENTS`, as (images seen, value)."""


def tracked_run(path: Path, *events: Event) -> Path:
    """Write a run with these events."""
    small_run(path, small_snapshot())
    (path / "journal.jsonl").unlink()
    return add_events(path, *events)


def add_events(path: Path, *events: Event) -> Path:
    journal = Journal(path / "journal.jsonl")
    for event in events:
        journal.append(event)
    return path


def track(run: Path, tracker: str, *words: str, **environment: str) -> str:
    """Run `cardigan track` and return what it prints."""
    done = command("-m", "cardigan", "track", str(run), "--to", tracker, *words, folder=run.parent, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def python(code: str, folder: Path, **environment: str) -> Any:
    """Run a program that prints JSON, and return what it prints in its last line."""
    done = command("-c", code, folder=folder, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def command(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )
