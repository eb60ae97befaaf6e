"""Training speed in images/s: recorded, eager, and the plain loop with TF32, without TF32 and compiled, in turn.

Each is a separate process (`speed_workers.py`). Medians over the windows with minimum and maximum; ratios are medians
of the windows' ratios.
"""

import time
from contextlib import ExitStack
from typing import Any

from gpu_check.part import Result, Settings
from gpu_check.speed_row import Case
from speed_workers import Worker

CASES = (("tutorial", 64), ("mnist", 64), ("tutorial", 1024), ("tutorial", 256))
"""The cases with targets come first, because the last ones may run out of time."""
WAYS = {
    "recorded": "cardigan",
    "eager": "eager",
    "plain": "plain",
    "plain without TF32": "plain without TF32",
    "compiled": "compiled",
}
"""Worker kinds of `speed_workers.py`, by variant."""
GPU_ONLY = ("recorded", "plain without TF32")
WINDOWS, SECONDS = 5, 0.4
COMPILE_SECONDS = 50.0
"""Seconds from the start to wait for compiled loops."""
TINY = {"generator.width": 4, "discriminator.width": 4, "data.max_images": 2_048}
RATIOS = {"plain": 1.5, "plain without TF32": 5.0}
FRACTION = 0.4


def run(settings: Settings, result: Result) -> None:
    ways = {way: kind for way, kind in WAYS.items() if settings.on_gpu or way not in GPU_ONLY}
    for way in WAYS.keys() - ways.keys():
        result.skip(way, "a CPU has no CUDA graphs and no TF32")
    if settings.tiny:
        ways.pop("compiled")
        result.skip("compiled", "compiling takes longer than a tiny run")
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        cases = [started(case, ways, settings, result, stack) for case in (CASES[1:2] if settings.tiny else CASES)]
        side = {"side": 256} if settings.tiny else {}
        product = stack.enter_context(Worker("matrix", {**cases[0].settings, **side}))
        if "compiled" in ways:
            compile_all(cases)
        for case in cases:
            rows.append(case.row(product, 2 if settings.tiny else WINDOWS, 0.05 if settings.tiny else SECONDS))
            result.add(rows=rows)
            case.end()
    for text, value, least in aims(rows):
        if settings.on_gpu and not settings.tiny:
            result.target(text, value, at_least=least)
        else:
            result.without_target(text, value)


def started(case: tuple[str, int], ways: dict[str, str], settings: Settings, result: Result, stack: ExitStack) -> Case:
    recipe, batch = case
    worker_settings: dict[str, Any] = {"recipe": recipe, "batch_size": batch, "device": settings.device}
    if settings.tiny:
        worker_settings |= {"batch_size": 8, "overrides": TINY}
    workers = {way: stack.enter_context(Worker(kind, worker_settings)) for way, kind in ways.items()}
    return Case(f"{recipe} at batch {batch}", worker_settings, workers, result)


def compile_all(cases: list[Case]) -> None:
    """Compile the compiled loops of all cases at the same time, before any measurement."""
    deadline = time.monotonic() + COMPILE_SECONDS
    for case in cases:
        case.workers["compiled"].send(steps=4)
    for case in cases:
        case.wait_for_compiled(max(0.0, deadline - time.monotonic()))


def aims(rows: list[dict[str, Any]]) -> list[tuple[str, float | None, float]]:
    """Return the targets: text, measured value and minimum."""
    found = {(row["recipe"], row["batch_size"]): row for row in rows}
    small, large = (found.get(("tutorial", batch), {}) for batch in (64, 1024))
    ratios = [
        (f"recorded `tutorial` at batch 64: at least {least:g} times the {kind} loop", f"recorded / {kind}", least)
        for kind, least in RATIOS.items()
    ]
    fraction = large.get("fraction_of_bf16_product", {}).get("recorded", {}).get("median")
    words = f"recorded `tutorial` at batch 1024: at least {FRACTION:g} of the bf16 product"
    medians = [(text, small.get("ratios", {}).get(name, {}).get("median"), least) for text, name, least in ratios]
    return [*medians, (words, fraction, FRACTION)]
