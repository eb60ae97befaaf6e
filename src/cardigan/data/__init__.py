"""Image sources as uint8 tensors, and the order of training."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cardigan.data.batches import Batch, Batches
    from cardigan.data.mnist import load_mnist
    from cardigan.data.reader import Reader, UnreadableImage
    from cardigan.data.source import ImageSource, ImageSpec

__all__ = ["Batch", "Batches", "ImageSource", "ImageSpec", "Reader", "UnreadableImage", "load_mnist"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cardigan.data import batches, mnist, reader, source

    return {**vars(batches), **vars(mnist), **vars(reader), **vars(source)}[name]


def __dir__() -> list[str]:
    return sorted(__all__)
