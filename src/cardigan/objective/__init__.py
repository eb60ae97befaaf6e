"""Losses, penalties and augmentation: pure functions of tensors. Knows no network."""

from typing import TYPE_CHECKING

from cardigan.public_names import import_on_first_use

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

__getattr__, __dir__ = import_on_first_use(
    __name__,
    {
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
    },
)
