"""A training that is killed (`kill -9`) and resumed ends with the same bytes as an uninterrupted one.

Every training is a separate process (`small_runs.py`) that does not compute scores.
"""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cardigan.run.checkpoint import list_checkpoints
from cardigan.run.journal import read_events
from gpu_check.part import Result, Settings

BENCHMARKS = Path(__file__).parents[1]
IMAGES, TINY_IMAGES = 200_000, 480
CADENCES = {"checkpoint_every_images": 10_000, "sample_every_images": 50_000}
TINY: dict[str, Any] = {
    **{"checkpoint_every_images": 96, "sample_every_images": 240, "batch_size": 16},
    **{"generator.width": 4, "discriminator.width": 4},
}
KILLS = 2
MAX_PAUSE = 0.3
"""Maximum seconds between a checkpoint and the kill."""
MAX_WAIT = 25.0
"""Seconds after which a process is killed even without the expected checkpoint; more in a tiny run."""


def run(settings: Settings, result: Result) -> None:
    images, changes = (TINY_IMAGES, TINY) if settings.tiny else (IMAGES, CADENCES)
    changes = {**changes, "device": settings.device}
    whole, killed = settings.folder / "whole", settings.folder / "killed"
    undisturbed, moments, kills = started(whole, images, changes), random.Random(0), 0
    wanted, longest = (1, 8 * MAX_WAIT) if settings.tiny else (KILLS, MAX_WAIT)
    for number in range(wanted):
        after, pause = images * number // (2 * wanted), moments.uniform(0, MAX_PAUSE)
        kills += is_killed(started(killed, images, changes), killed, after, pause, longest)
        result.add(kills=kills)
    last = started(killed, images, changes).wait()
    result.check(last == 0, f"the last resumption ended with exit code {last}")
    result.check(undisturbed.wait() == 0, f"the undisturbed run ended with exit code {undisturbed.returncode}")
    resumed = [event.images_seen for event in read_events(killed / "journal.jsonl") if event.kind == "resume"]
    result.add(images=images, resumed_at=resumed)
    result.check(kills > 0, "no process was killed: every run had ended before")
    result.check(bool(resumed) and 0 < max(resumed) < images, f"no run was resumed in the middle: {resumed}")
    same = bytes_of(killed) == bytes_of(whole)
    result.check(same, "the killed and resumed run has another generator.safetensors than the undisturbed one")


def started(out: Path, images: int, changes: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start or resume a training."""
    words = [sys.executable, "-m", "gpu_check.small_runs", str(out), str(images), json.dumps(changes)]
    return subprocess.Popen(words, cwd=BENCHMARKS, stdout=subprocess.DEVNULL)


def is_killed(running: subprocess.Popen[bytes], out: Path, after: int, pause: float, longest: float) -> bool:
    """Kill a run `pause` seconds after its first checkpoint beyond `after` images; return whether it still ran."""
    deadline = time.monotonic() + longest
    while running.poll() is None and time.monotonic() < deadline and newest(out) <= after:
        time.sleep(0.005)
    time.sleep(pause)
    running.send_signal(signal.SIGKILL)
    return running.wait() == -signal.SIGKILL


def newest(out: Path) -> int:
    """Return the images seen of the newest checkpoint, or 0."""
    return max((int(path.name) for path in list_checkpoints(out / "checkpoints")), default=0)


def bytes_of(out: Path) -> bytes | None:
    file = out / "generator.safetensors"
    return file.read_bytes() if file.exists() else None
