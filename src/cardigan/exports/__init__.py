"""Export of models and samples to portable files with a model card. The entry point is `cardigan.export`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cardigan.exports.checking import largest_difference
    from cardigan.exports.interface import ExportFormat
    from cardigan.exports.table import FORMATS

__all__ = ["FORMATS", "ExportFormat", "largest_difference"]

MODULES = {"largest_difference": "checking", "ExportFormat": "interface", "FORMATS": "table"}
"""The module of each public name, which is imported on first use."""


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
