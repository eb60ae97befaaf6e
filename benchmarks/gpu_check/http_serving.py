"""A server on this machine: correctness of the images, images per second, and latencies."""

import argparse
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import cardigan
from cardigan.models.snapshot import Snapshot, write_snapshot
from cardigan.overrides import override
from cardigan.recipes import config_for
from gpu_check.part import Result, Settings
from gpu_check.small_training import SmallTraining
from serving import generate_directly, request_over_http
from variations import SMALL

CLIENTS, PER_REQUEST, ROUNDS = 16, 16, 3
IMAGES, TINY_IMAGES = 24_000, 192
"""Images in all rounds."""
STOP_SECONDS = 20


def run(settings: Settings, result: Result) -> None:
    path = settings.folder / "model.safetensors"
    model = written_model(path, settings).to(settings.device)
    images_per_round = (TINY_IMAGES if settings.tiny else IMAGES) // ROUNDS
    expected = model.sample_seeds(range(images_per_round))
    server, port = started(path, settings.device)
    try:
        answer(port, expected[: 2 * PER_REQUEST])  # warms up the server
        rounds = [
            (generate_directly(model, 0.1 if settings.tiny else 1.0), answer(port, expected)) for _ in range(ROUNDS)
        ]
    finally:
        server.terminate()
        server.wait(STOP_SECONDS)
    bare, served = (
        [number["images"] / number["seconds"] for number in numbers] for numbers in zip(*rounds, strict=True)
    )
    latencies = [seconds for _, load in rounds for seconds in load["latencies"]]
    right, faults = sum(load["images"] for _, load in rounds), [fault for _, load in rounds for fault in load["faults"]]
    p50, p99 = (round(float(value), 4) for value in np.percentile(latencies or [0.0], [50, 99]))
    result.add(
        **{
            "images_per_second": round(statistics.median(served), 1),
            "bare_images_per_second": round(statistics.median(bare), 1),
        },
        **{
            "p50_seconds": p50,
            "p99_seconds": p99,
            "images_requested": ROUNDS * images_per_round,
            "images_correct": right,
            "exit_code": server.returncode,
        },
    )
    result.check(
        right == ROUNDS * images_per_round, f"{right} of {ROUNDS * images_per_round} images are correct: {faults[:2]}"
    )
    result.check(server.returncode == 0, f"the server ended with exit code {server.returncode}")


def written_model(path: Path, settings: Settings) -> cardigan.Model:
    """Return a small generator of digits after two steps, read from the file to serve."""
    small = {**SMALL, "device": settings.device, **({} if settings.tiny else {"generator.width": 32})}
    config = override(config_for("mnist"), small)
    training = SmallTraining(config, recorded=False)
    training.advance(2)
    write_snapshot(path, Snapshot(training.state.ema_generator, config, training.spec, training.state.images_seen))
    return cardigan.load(path)


def started(model: Path, device: str) -> tuple[subprocess.Popen[str], int]:
    """Return the server's process and its port."""
    words = [sys.executable, "-m", "cardigan", "serve", str(model), "--port", "0", "--device", device]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    first = server.stdout.readline()
    found = re.search(r":(\d+)/", first)
    assert found, f"the server printed no address: {first!r}"
    return server, int(found[1])


def answer(port: int, expected: np.ndarray) -> dict[str, Any]:
    """Request these images, one seed each, and compare every pixel."""
    options = argparse.Namespace(clients=CLIENTS, per_request=PER_REQUEST, kind="application/x-npz")
    return request_over_http(port, options, expected, 0)
