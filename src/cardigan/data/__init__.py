"""Image sources as uint8 tensors, and the order of training."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cardigan.data.batches import Batch, Batches
    from cardigan.data.formats.detection import ADDRESS_READERS, SOURCE_FORMATS, SourceFormat, without_column
    from cardigan.data.mnist import load_mnist
    from cardigan.data.reader import Reader, UnreadableImage, fingerprint
    from cardigan.data.source import ImageSource, ImageSpec

__all__ = [
    "ADDRESS_READERS",
    "SOURCE_FORMATS",
    "Batch",
    "Batches",
    "ImageSource",
    "ImageSpec",
    "Reader",
    "SourceFormat",
    "UnreadableImage",
    "fingerprint",
    "load_mnist",
    "without_column",
]

MODULES = {
    "Batch": "batches",
    "Batches": "batches",
    "ADDRESS_READERS": "formats.detection",
    "SOURCE_FORMATS": "formats.detection",
    "SourceFormat": "formats.detection",
    "without_column": "formats.detection",
    "load_mnist": "mnist",
    "Reader": "reader",
    "UnreadableImage": "reader",
    "fingerprint": "reader",
    "ImageSource": "source",
    "ImageSpec": "source",
}
"""The module of each public name, which is imported on first use."""


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
