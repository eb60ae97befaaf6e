"""Recorded, eager and resumed steps give the same bits, for every recipe and every variation of options.

"Recorded" means captured as CUDA graphs. On a CPU a second eager run takes the place of the recorded one.
"""

import os
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import torch

from cardigan.config import Config
from cardigan.overrides import override
from cardigan.recipes import RECIPES, config_for
from cardigan.training.cuda_graph import WARMUP_STEPS
from gpu_check.part import Result, Settings
from gpu_check.small_training import SmallTraining, cycle_of, different_bits
from variations import SMALL, VARIATIONS, reduced

REPLAYED_CYCLES = 2
"""Minimum number of replays of each kind of step."""
TINY = {"batch_size": 8, "generator.width": 4, "discriminator.width": 4}
TINY_CASES = (
    "recipe mnist",
    "recipe gan2014",
    "loss hinge",
    "gradient accumulation",
    "precision tf32",
)
SENT = "images sent step by step"
MAX_WORKERS = 4


def run(settings: Settings, result: Result) -> None:
    reports: dict[str, dict[str, Any]] = {}
    cases = {
        name: config for name, config in all_cases(settings).items() if not is_skipped(name, config, settings, result)
    }
    if settings.tiny:
        left_out = [name for name in cases if name not in (*TINY_CASES, SENT)]
        result.skip(f"{len(left_out)} of {len(cases)} cases", "a tiny run compares only a few cases")
        cases = {name: config for name, config in cases.items() if name not in left_out}
    result.add(cases=len(cases))
    for name, report in reports_of(cases, settings):
        reports[name] = report
        for failure in report["failures"]:
            result.check(False, f"{name}: {failure}")
        result.checks += report["checks"]
        result.add(compared=len(reports), steps=sum(each["steps"] for each in reports.values()))
    if not settings.on_gpu:
        result.skip("recorded steps", "no GPU: two eager runs are compared instead")
    result.check(len(reports) == len(cases), f"{len(cases) - len(reports)} cases were not compared")


def all_cases(settings: Settings) -> dict[str, Config]:
    """Return the reduced configs of all recipes and variations."""
    small = {**SMALL, **(TINY if settings.tiny else {}), "device": settings.device}
    recipes = {f"recipe {name}": reduced(recipe.config(), small) for name, recipe in RECIPES.items()}
    options = {name: override(config_for("mnist"), {**small, **changes}) for name, changes in VARIATIONS.items()}
    return {**recipes, **options, SENT: override(config_for("mnist"), small)}


def is_skipped(name: str, config: Config, settings: Settings, result: Result) -> bool:
    if config.precision == "tf32" and not settings.on_gpu:
        result.skip(name, "a CPU has no TF32")
        return True
    return False


def reports_of(cases: dict[str, Config], settings: Settings) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and report of each finished case. On a GPU several run at once: steps mostly wait for the host."""
    workers = min(MAX_WORKERS, (os.cpu_count() or 1) // 2) if settings.on_gpu else 1
    if workers <= 1:
        yield from ((name, compared(config, name == SENT)) for name, config in cases.items())
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(compared, config, name == SENT): name for name, config in cases.items()}
        for done in as_completed(running):
            error = done.exception()
            yield (
                running[done],
                done.result() if error is None else {"checks": 0, "steps": 0, "failures": [f"{error!r}"]},
            )


def compared(config: Config, sent: bool) -> dict[str, Any]:
    """Return the report of one case: number of checks, number of steps, failures."""
    try:
        return _compared(config, sent)
    except Exception as error:  # noqa: BLE001 - a case that cannot run is a failure; the others go on
        return {
            "checks": 0,
            "steps": 0,
            "failures": [f"{error!r} at {traceback.format_tb(error.__traceback__)[-1].strip()}"],
        }


def _compared(config: Config, sent: bool) -> dict[str, Any]:
    on_gpu = config.device.startswith("cuda")
    first, rest = step_counts(config, on_gpu)
    with training(config, recorded=False, sent=sent) as eager:
        measured, tensors = eager.advance(first + rest), eager.tensors()
    failures, checks = (
        [] if bool(torch.isfinite(measured).all()) else ["an eager step has a non-finite measurement"],
        1,
    )
    with training(config, recorded=True, sent=sent) as straight:
        before = straight.advance(first)
        saved, images_seen = straight.tensors(), straight.state.images_seen
        again = torch.cat([before, straight.advance(rest)])
        failures += differences(
            "recorded steps" if on_gpu else "a second run", (again, straight.tensors()), (measured, tensors)
        )
        failures += unrecorded(straight) if on_gpu else []
    with training(config, recorded=True, sent=sent) as resumed:
        resumed.load(saved, images_seen)
        after = resumed.advance(rest)
        failures += differences("a resumed run", (after, resumed.tensors()), (measured[first:], tensors))
        failures += unrecorded(resumed) if on_gpu else []
    checks += 6 if on_gpu else 4
    return {"checks": checks - len(failures), "steps": first + 2 * rest, "failures": failures}


@contextmanager
def training(config: Config, recorded: bool, sent: bool) -> Iterator[SmallTraining]:
    opened = SmallTraining(config, recorded, sent)
    try:
        yield opened
    finally:
        opened.close()


def step_counts(config: Config, on_gpu: bool) -> tuple[int, int]:
    """Return the number of steps before and after saving the state.

    The state is saved in the middle of a cycle. Afterwards every kind of step is run, recorded and replayed.
    """
    cycle = cycle_of(config)
    return cycle + 1, cycle * (WARMUP_STEPS + REPLAYED_CYCLES) if on_gpu else cycle + 1


def differences(
    what: str, ours: tuple[torch.Tensor, dict[str, torch.Tensor]], theirs: tuple[torch.Tensor, dict[str, torch.Tensor]]
) -> list[str]:
    """Return the differences between two trainings in measurements and state tensors, to the bit."""
    steps = [
        number
        for number, rows in enumerate(zip(ours[0], theirs[0], strict=True))
        if different_bits({"": rows[0]}, {"": rows[1]})
    ]
    measurements = [f"{what}: other measurements from step {steps[0]} on, {len(steps)} steps in all"] if steps else []
    tensors = different_bits(ours[1], theirs[1])
    return [*measurements, *([f"{what}: {tensors}"] if tensors else [])]


def unrecorded(done: SmallTraining) -> list[str]:
    return [] if done.replays_every_kind() else [f"not every kind of step was replayed {done.messages}".strip()]
