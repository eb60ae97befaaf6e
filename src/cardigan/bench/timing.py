"""One timed training: a process of its own, stopped at the target, described by its journal and its resources."""

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cardigan.bench import machine
from cardigan.bench.rungs import Rung, rung_settings, rung_source
from cardigan.errors import CardiganError
from cardigan.hardware.device import find_device
from cardigan.inference.model import load
from cardigan.overrides import experiment_settings
from cardigan.run.directory import RunDirectory, read_config
from cardigan.run.journal import Event, read_events

NUM_SAMPLES = 1_000
SAMPLING = ("generator_megabytes", "seconds_per_1000_samples")


def train_command(rung: Rung, recipe: str, seed: int, out: Path, device: str, limit_minutes: float) -> list[str]:
    """Return the command line of one seed, without the program."""
    settings = {
        "target_score": rung.target,
        "checkpoint_every_images": rung.cadence_images,
        "sample_every_images": 10_000_000,
        **rung_settings(rung, recipe),
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

    A training that fails on its way has not reached the target, and `failed` says why. Raises CardiganError with the
    message of the training if it fails before its first step.
    """
    command = train_command(rung, recipe, seed, out, device, limit_minutes)
    joules, started_at = machine.read_joules(), time.monotonic()
    measured = _launch([sys.executable, "-m", "cardigan", *command])
    energy = machine.joules_since(joules, time.monotonic() - started_at)
    run, failed = RunDirectory(out), {}
    events = read_events(run.journal) if run.journal.exists() else []
    if measured["exit_code"]:
        failed = {"reached": False, "failed": measured["errors"].strip() or f"exit code {measured['exit_code']}"}
        if not any(event.images_seen for event in events):
            raise CardiganError(f"`cardigan {shlex.join(command)}` failed: {failed['failed']}")
    public = [rung.source if word == command[1] else out.name if word == str(out) else word for word in command]
    return {
        "seed": seed,
        **reading(events),
        **failed,
        "cpu_seconds": measured["cpu_seconds"],
        "cpu_joules": energy,
        "peak_megabytes": measured["peak_megabytes"],
        **(sampling(out, device) if not failed else dict.fromkeys(SAMPLING)),
        "settings_sha256": _settings_hash(run, rung),
        "command": f"cardigan {shlex.join(public)}",
    }


def _launch(command: list[str]) -> dict[str, Any]:
    """Run a command in a session of its own and return what `launch.py` says. It ends with this process."""
    launcher = subprocess.Popen(
        [sys.executable, "-m", "cardigan.bench.launch", *command],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = launcher.communicate()
        if not output:
            raise CardiganError(
                f"The training was ended from outside (exit code {launcher.returncode}): start it again."
            )
        return json.loads(output)
    finally:
        if launcher.poll() is None:
            os.killpg(launcher.pid, signal.SIGTERM)
            launcher.wait()


def _settings_hash(run: RunDirectory, rung: Rung) -> str:
    """Return the SHA-256 of the settings that the weights depend on, wherever the images lie."""
    settings = {**experiment_settings(read_config(run)), "data.source": rung.source}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def reading(events: list[Event]) -> dict[str, Any]:
    """Return what a run's journal says: whether, when and after how many images it was at the target.

    Seconds count from the start of the process, without the evaluations. For a run that missed the target, they are the
    values at its end.
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


def sampling(run: Path, device: str) -> dict[str, Any]:
    """Return the size of the generator's file, and the seconds that 1,000 samples take on the training's device."""
    model = load(run).to(str(find_device(device)))
    model.sample(NUM_SAMPLES // 10)
    started_at = time.perf_counter()
    model.sample(NUM_SAMPLES)  # on the host, so nothing is still being computed
    seconds = time.perf_counter() - started_at
    return dict(
        zip(SAMPLING, (round(RunDirectory(run).generator.stat().st_size / 1e6, 2), round(seconds, 3)), strict=True)
    )


def as_text(seed: dict[str, Any]) -> str:
    """Return one seed's result as one line."""
    score = "none" if seed["score"] is None else f"{seed['score']:g}"
    state = "reached" if seed["reached"] else f"not reached, best {seed['best_score']}"
    state = f"failed: {seed['failed']}" if "failed" in seed else state
    return (
        f"seed {seed['seed']}: {seed['seconds']:,.0f} s, {seed['images']:,} images, score {score} ({state}); CPU "
        f"{seed['cpu_seconds']:,.0f} s with evaluations, peak {seed['peak_megabytes']:,} MB"
    )
