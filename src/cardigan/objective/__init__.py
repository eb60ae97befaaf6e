"""Losses, penalties and augmentation: pure functions of tensors. Knows no network."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cardigan.objective.augment import OPERATIONS, Operation, is_applied
    from cardigan.objective.losses import (
        LOSSES,
        Loss,
        find_loss,
        logit_margin,
        non_saturating_discriminator,
        non_saturating_generator,
    )
    from cardigan.objective.penalties import PENALTIES, Penalty, PenaltyInputs

__all__ = [
    "LOSSES",
    "OPERATIONS",
    "PENALTIES",
    "Loss",
    "Operation",
    "Penalty",
    "PenaltyInputs",
    "find_loss",
    "is_applied",
    "logit_margin",
    "non_saturating_discriminator",
    "non_saturating_generator",
]

MODULES = {
    "OPERATIONS": "augment",
    "Operation": "augment",
    "is_applied": "augment",
    "LOSSES": "losses",
    "Loss": "losses",
    "find_loss": "losses",
    "logit_margin": "losses",
    "non_saturating_discriminator": "losses",
    "non_saturating_generator": "losses",
    "PENALTIES": "penalties",
    "Penalty": "penalties",
    "PenaltyInputs": "penalties",
}
"""The module of each public name, which is imported on first use."""


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
