"""Provenance of a run: versions, commit, machine.

It is written to `config.json` and never to weight files, whose bytes depend only on the config.
"""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from cardigan.plugins import load_plugins


def provenance(command: list[str], device: torch.device, arithmetic: str) -> dict[str, Any]:
    """Return versions, commit, machine, command line and the networks' arithmetic as plain JSON values."""
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
        "plugins": load_plugins(),
    }


def _device_name(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def _commit() -> str | None:
    """Return the commit of the source tree that this package runs from, or None if there is no repository."""
    package = Path(__file__).parents[1]
    try:
        process = subprocess.run(  # noqa: PLW1510 - a missing repository is no error
            ["git", "-C", str(package), "log", "-1", "--format=%H", "--", "."],
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() or None
