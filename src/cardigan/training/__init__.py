"""Training: state, step, loop. The only package that writes run directories."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cardigan.training.optimizers import OPTIMIZERS, OptimizerFn

__all__ = ["OPTIMIZERS", "OptimizerFn"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cardigan.training import optimizers

    return getattr(optimizers, name)


def __dir__() -> list[str]:
    return sorted(__all__)
