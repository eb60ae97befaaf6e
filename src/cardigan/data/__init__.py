"""Image sources as uint8 tensors, and the order of training."""

from typing import TYPE_CHECKING

from cardigan.public_names import import_on_first_use

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

__getattr__, __dir__ = import_on_first_use(
    __name__,
    {
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
    },
)
