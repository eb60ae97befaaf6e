"""Steps of `tutorial` under PyTorch's profiler: the ten most expensive kernels, and the utilization of the GPU."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from cardigan.overrides import override
from cardigan.recipes import RECIPES
from cardigan.training.cuda_graph import WARMUP_STEPS
from gpu_check.part import Result, Settings
from gpu_check.small_training import SmallTraining, cycle_of
from variations import SMALL

STEPS = 10
NUM_KERNELS = 10


def run(settings: Settings, result: Result) -> None:
    small = {**SMALL, "batch_size": 4} if settings.tiny else {}
    config = override(RECIPES["tutorial"].config(), {**small, "device": settings.device})
    steps = 2 if settings.tiny else STEPS
    for name, recorded in (("recorded", True), ("eager", False)):
        if recorded and not settings.on_gpu:
            result.skip("recorded steps", "no GPU")
            continue
        training = SmallTraining(config, recorded)
        training.advance(cycle_of(config) * (WARMUP_STEPS + 1))
        report = profiled(lambda training=training: training.advance(steps), steps, settings.on_gpu)
        result.add(**{name: report})
        result.check(
            len(report["most_expensive"]) == NUM_KERNELS,
            f"{name}: the profiler saw {len(report['most_expensive'])} kernels or operators",
        )
        result.check(
            0 < report["busy_seconds"] <= 1.2 * report["seconds"],
            f"{name}: {report['busy_seconds']} s busy of {report['seconds']} s",
        )
    if not settings.on_gpu:
        result.skip("kernels of the GPU", "no GPU: the ten most expensive CPU operators are listed instead")


def profiled(work: Callable[[], object], steps: int, on_gpu: bool) -> dict[str, Any]:
    """Return the times of some steps; `seconds` is wall time, including the profiler's overhead."""
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiler:
        began = time.perf_counter()
        work()
        if on_gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    rows = [row for row in profiler.key_averages() if row.device_type == kind and not row.is_user_annotation]
    spent = {row.key: (row.self_device_time_total if on_gpu else row.self_cpu_time_total) / 1e6 for row in rows}
    busy = sum(spent.values())
    counts = {row.key: row.count for row in rows}
    most_expensive = sorted(spent, key=lambda name: spent[name], reverse=True)[:NUM_KERNELS]
    return {
        "steps": steps,
        "seconds": round(seconds, 4),
        "busy_seconds": round(busy, 4),
        "busy_fraction": round(busy / seconds, 3),
        "kernels_per_step": round(sum(counts.values()) / steps, 1),
        "most_expensive": [
            {
                "name": name[:120],
                "calls": counts[name],
                "fraction": round(spent[name] / max(busy, 1e-9), 3),
                "microseconds": round(1e6 * spent[name]),
            }
            for name in most_expensive
        ],
    }
