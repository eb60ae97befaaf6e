"""What a machine is, and how fast it multiplies and copies: printed beside every time, so that machines compare."""

import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from cardigan.hardware.device import find_device
from cardigan.hardware.precision import multiplies_bf16

MATRIX_SIDE, ROUNDS = 2_048, 5
COPIED_BYTES = 2**28
RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
"""Linux's energy counter of the first CPU package, in microjoules. Often only root may read it."""
MAX_WATTS = 300
"""More than a CPU package takes. Energy is not reported where the counter could have begun again unseen."""


def describe_machine(device: str) -> dict[str, Any]:
    """Return names, versions and the calibration of this machine, as plain JSON values."""
    found = find_device(device)
    return {
        "cpu": _cpu_name(),
        "device": f"{found} ({torch.cuda.get_device_name(found)})" if found.type == "cuda" else str(found),
        "num_threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cardigan": version("cardigan"),
        "calibration": calibration(found),
    }


def calibration(device: torch.device) -> dict[str, float]:
    """Return the best of a few rounds: GFLOP/s of a square matrix product in fp32 and bf16, and GB/s of a copy."""
    speeds: dict[str, float] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        if dtype == torch.bfloat16 and not multiplies_bf16(device):
            continue
        left, right = (torch.randn(MATRIX_SIDE, MATRIX_SIDE, device=device).to(dtype) for _ in range(2))
        seconds = _best_seconds(lambda left=left, right=right: torch.mm(left, right), device)
        speeds[f"{name}_gflops"] = round(2 * MATRIX_SIDE**3 / seconds / 1e9, 1)
    values = torch.ones(COPIED_BYTES // 4, device=device)
    target = torch.empty_like(values)
    seconds = _best_seconds(lambda: target.copy_(values), device)
    speeds["copy_gigabytes_per_second"] = round(2 * COPIED_BYTES / seconds / 1e9, 1)
    return speeds


def read_joules() -> float | None:
    """Return the energy counter of the CPU in joules, or None where the machine does not tell."""
    try:
        return int(RAPL.read_text()) / 1e6
    except (OSError, ValueError):
        return None


def joules_since(before: float | None, seconds: float) -> int | None:
    """Return the energy since the counter was at `before`, or None if it may have begun again more than once."""
    after = read_joules()
    try:
        counter_range = int(RAPL.with_name("max_energy_range_uj").read_text()) / 1e6
    except (OSError, ValueError):
        return None
    if before is None or after is None or seconds * MAX_WATTS > counter_range:
        return None
    return round((after - before) % counter_range)


def _best_seconds(work: Callable[[], object], device: torch.device) -> float:
    best = float("inf")
    for _ in range(ROUNDS + 1):
        started_at = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started_at)
    return best


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
