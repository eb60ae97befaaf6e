"""Memory stays flat over 500 iterations of a whole run: steps, sample grids, checkpoints and their scores."""

import resource
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

import cardigan
from cardigan.hardware.device import find_device
from cardigan.run.journal import Event
from gpu_check.part import Result, Settings
from gpu_check.small_runs import scripted_scores

FIRST, ITERATIONS, EVERY = 100, 500, 50
"""Iterations before the first measurement, measured iterations, and iterations between two measurements."""
TINY = {"batch_size": 16, "generator.width": 4, "discriminator.width": 4}
MAX_GROWTH = {"gpu_allocated": 2.0, "gpu_reserved": 64.0, "resident": 32.0}
"""In MB, from the maximum of the first half of the measurements to the maximum of the second half."""


def run(settings: Settings, result: Result) -> None:
    device = find_device(settings.device)
    first, iterations, every = (10, 40, 10) if settings.tiny else (FIRST, ITERATIONS, EVERY)
    measurements = memory_at_checkpoints(settings, device, first, iterations, every)
    result.add(iterations=iterations, num_measurements=len(measurements))
    result.add(megabytes={name: [round(each[name], 1) for each in measurements] for name in measurements[0]})
    result.check(len(measurements) >= iterations // every, f"only {len(measurements)} memory measurements")
    half = len(measurements) // 2
    for name in measurements[0]:
        growth = max(each[name] for each in measurements[half:]) - max(each[name] for each in measurements[:half])
        result.add(**{f"{name}_growth_megabytes": round(growth, 2)})
        result.check(growth <= MAX_GROWTH[name], f"{name}: grew by {growth:.1f} MB over {iterations} iterations")
    if device.type != "cuda":
        result.skip("memory of the GPU", "no GPU")


def memory_at_checkpoints(
    settings: Settings, device: torch.device, first: int, iterations: int, every: int
) -> list[dict[str, float]]:
    """Train, and return the memory at every checkpoint after the first iterations. A tiny run computes no scores."""
    batch, measurements = (TINY["batch_size"] if settings.tiny else 64), list[dict[str, float]]()

    def measure(event: Event) -> None:
        if event.kind == "checkpoint" and event.images_seen >= first * batch:
            measurements.append(memory_megabytes(device))

    cadence = {"checkpoint_every_images": every * batch, "sample_every_images": 2 * every * batch}
    changes: dict[str, Any] = {"device": str(device), **cadence, **(TINY if settings.tiny else {})}
    with scripted_scores({}, otherwise=1.0) if settings.tiny else nullcontext():
        cardigan.train(
            "mnist",
            out=settings.folder / "run",
            images=(first + iterations) * batch,
            overrides=changes,
            on_event=measure,
        )
    return measurements


def memory_megabytes(device: torch.device) -> dict[str, float]:
    """Return the memory of this process, in MB."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    if device.type != "cuda":
        return {"resident": resident}
    allocated, reserved = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    return {"gpu_allocated": allocated / 1e6, "gpu_reserved": reserved / 1e6, "resident": resident}
