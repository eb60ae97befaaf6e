"""One timed training: a process of its own, stopped at the target, described by its journal and its resources."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cardigan.bench import machine
from cardigan.bench.rungs import Rung, rung_source
from cardigan.errors import CardiganError
from cardigan.inference.model import load
from cardigan.run.directory import RunDirectory
from cardigan.run.journal import Event, read_events

NUM_SAMPLES = 1_000


def train_command(rung: Rung, recipe: str, seed: int, out: Path, device: str, limit_minutes: float) -> list[str]:
    """Return the command line of one seed, without the program."""
    settings = {
        "target_score": rung.target,
        "checkpoint_every_images": rung.cadence_images,
        "sample_every_images": 10_000_000,
        **rung.settings,
    }
    options = [word for name, value in settings.items() for word in _option(name, value)]
    words = ["train", rung_source(rung), "--seed", str(seed), "--minutes", f"{limit_minutes:g}", "--device", device]
    return [*words, "--recipe", recipe, "--out", str(out), *options]


def _option(name: str, value: object) -> list[str]:
    """Return a setting as an option of `cardigan train`."""
    if isinstance(value, bool):
        return [f"--{'' if value else 'no-'}{name.replace('_', '-')}"]
    return [f"--{name.replace('_', '-')}", str(value)]


def timed_run(rung: Rung, recipe: str, seed: int, out: Path, device: str, limit_minutes: float) -> dict[str, Any]:
    """Train one seed until the target or the limit, and return what it took, as plain JSON values.

    Raises CardiganError with the message of the training if it fails.
    """
    command = train_command(rung, recipe, seed, out, device, limit_minutes)
    joules = machine.read_joules()
    process = subprocess.Popen(
        [sys.executable, "-m", "cardigan", *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    with process.stderr:
        errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise CardiganError(f"`cardigan {shlex.join(command)}` failed: {errors.strip() or process.returncode}")
    after = machine.read_joules()
    events = read_events(RunDirectory(out).journal)
    return {
        "seed": seed,
        **reading(events),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "joules": None if joules is None or after is None or after < joules else round(after - joules),
        "peak_megabytes": round(usage.ru_maxrss / 1e3),
        **sampling(out),
        "command": f"cardigan {shlex.join(command)}",
    }


def reading(events: list[Event]) -> dict[str, Any]:
    """Return what a run's journal says: whether, when and after how many images it was at the target.

    Seconds count from the start of the process, without the evaluations. Of a run that did not get there they are those
    of its end.
    """
    evaluation, curve, counted = 0.0, [], 0.0
    for event in events:
        if event.kind != "checkpoint":
            continue
        evaluation += float(event.values.get("evaluation_seconds", 0.0))
        counted = round(event.elapsed_seconds - evaluation, 1)
        if "score" in event.values:
            curve.append([event.images_seen, counted, round(float(event.values["score"]), 3)])
    stop = events[-1]
    return {
        "reached": stop.values.get("reason") == "target",
        "seconds": counted,
        "images": stop.images_seen,
        "score": curve[-1][2] if curve else None,
        "best_score": min((point[2] for point in curve), default=None),
        "curve": curve,
    }


def sampling(run: Path) -> dict[str, Any]:
    """Return the size of the generator's file and the seconds that 1,000 samples take."""
    model = load(run)
    model.sample(NUM_SAMPLES // 10)
    started_at = time.perf_counter()
    model.sample(NUM_SAMPLES)
    seconds = time.perf_counter() - started_at
    return {
        "generator_megabytes": round(RunDirectory(run).generator.stat().st_size / 1e6, 2),
        "seconds_per_1000_samples": round(seconds, 3),
    }


def as_text(seed: dict[str, Any]) -> str:
    """Return one seed's result as one line."""
    score = "none" if seed["score"] is None else f"{seed['score']:g}"
    state = "reached" if seed["reached"] else f"not reached, best {seed['best_score']}"
    return (
        f"seed {seed['seed']}: {seed['seconds']:,.0f} s, {seed['images']:,} images, score {score} ({state}); CPU "
        f"{seed['cpu_seconds']:,.0f} s with evaluations, peak {seed['peak_megabytes']:,} MB"
    )
