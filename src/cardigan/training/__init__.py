"""Training: state, step, loop. The only package that writes run directories."""

from typing import TYPE_CHECKING

from cardigan.public_names import import_on_first_use

if TYPE_CHECKING:
    from cardigan.training.optimizers import OPTIMIZERS, OptimizerFn
    from cardigan.training.schedule import LEARNING_RATE_SCHEDULES

__all__ = ["LEARNING_RATE_SCHEDULES", "OPTIMIZERS", "OptimizerFn"]

__getattr__, __dir__ = import_on_first_use(
    __name__, {"OPTIMIZERS": "optimizers", "OptimizerFn": "optimizers", "LEARNING_RATE_SCHEDULES": "schedule"}
)
