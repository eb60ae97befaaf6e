"""Training: state, step, loop. The only package that writes run directories."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cardigan.training.optimizers import OPTIMIZERS, OptimizerFn
    from cardigan.training.schedule import LEARNING_RATE_SCHEDULES

__all__ = ["LEARNING_RATE_SCHEDULES", "OPTIMIZERS", "OptimizerFn"]

MODULES = {"OPTIMIZERS": "optimizers", "OptimizerFn": "optimizers", "LEARNING_RATE_SCHEDULES": "schedule"}
"""The module of each public name, which is imported on first use."""


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
