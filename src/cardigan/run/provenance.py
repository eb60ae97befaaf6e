"""What made a run: versions, commit, machine. Written into `config.json`, never into weights, whose bytes depend on the config alone."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def provenance(command: list[str], device: torch.device, arithmetic: str) -> dict[str, Any]:
    """Return the versions, commit, machine and command line of this process as plain JSON values, and what the networks are computed in."""
    return {
        "cardigan_version": version("cardigan"),
        "torch_version": torch.__version__,
        "python_version": platform.python_version(),
        "platform": platform.platform(),
        "device": _device_name(device),
        "arithmetic": arithmetic,
        "num_threads": torch.get_num_threads(),
        "commit": _commit(),
        "command": command,
    }


def _device_name(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def _commit() -> str | None:
    """Return the commit of the source tree this package runs from, or None when it is installed elsewhere."""
    package = Path(__file__).parents[1]
    try:
        found = subprocess.run(  # noqa: PLW1510 - no repository is an answer
            ["git", "-C", str(package), "log", "-1", "--format=%H", "--", "."],
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
