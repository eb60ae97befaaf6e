"""Losses, penalties and augmentation: pure functions of tensors. Knows no network."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    "PENALTIES",
    "Loss",
    "Penalty",
    "PenaltyInputs",
    "find_loss",
    "logit_margin",
    "non_saturating_discriminator",
    "non_saturating_generator",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cardigan.objective import losses, penalties

    return {**vars(losses), **vars(penalties)}[name]


def __dir__() -> list[str]:
    return sorted(__all__)
