"""Export of models and samples to portable files with a model card. The entry point is `cardigan.export`."""

from typing import TYPE_CHECKING

from cardigan.public_names import import_on_first_use

if TYPE_CHECKING:
    from cardigan.exports.checking import largest_difference
    from cardigan.exports.interface import ExportFormat
    from cardigan.exports.table import FORMATS

__all__ = ["FORMATS", "ExportFormat", "largest_difference"]

__getattr__, __dir__ = import_on_first_use(
    __name__, {"largest_difference": "checking", "ExportFormat": "interface", "FORMATS": "table"}
)
