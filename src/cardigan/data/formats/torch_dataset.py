"""Images of a map-style torch dataset: Pillow images, arrays or tensors.

Does not know how the dataset reads them, or whether it always returns the same images.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import Dataset

from cardigan.data.decoding import HIGH_BIT_DEPTH_MODES, PIL_MODES, num_channels, to_uint8
from cardigan.data.formats.arrays import (
    BINARY_NOTE,
    NUM_PROBED,
    channels_last_axes,
    class_label,
    is_binary,
    pixel_converter,
    to_numpy,
)
from cardigan.data.reader import Reader, UnreadableImage, fingerprint
from cardigan.errors import CardiganError, error_reason

ITEM_ERRORS = (OSError, EOFError, ValueError, SyntaxError, RuntimeError)
"""Errors that a dataset raises for an unreadable image."""


def torch_dataset_reader(dataset: Dataset[Any]) -> Reader:
    """Return the images of a torch dataset with a length. Each item is an image or a tuple (image, class).

    Images are Pillow images, or arrays or tensors with channels first or last, in the ranges of `array_reader`.
    The fingerprint covers the first 100 items and the length. The class of an item is read with the item.
    """
    name, num_images = type(dataset).__name__, _num_items(dataset)
    sample = list(_readable_items(dataset, range(min(NUM_PROBED, num_images))))
    if not sample:
        raise CardiganError(
            f"None of the first {NUM_PROBED} items of {name} can be read: expected a dataset of readable images."
        )
    probed = [_item_pixels(name, item) for item in sample]
    binary = all(pixels.dtype == np.uint8 for pixels in probed) and is_binary(probed)
    converted = probed if binary else [pixels for pixels in probed if pixels.dtype != np.uint8]
    to_pixels = pixel_converter(name, converted) if converted else np.array

    def read(index: int) -> np.ndarray:
        pixels = _item_pixels(name, _item(dataset, index))
        return pixels if pixels.dtype == np.uint8 and not binary else to_pixels(pixels)

    probe_fingerprint = fingerprint(
        [
            name,
            num_images,
            *(part for pixels in probed for part in (f"{pixels.dtype} {pixels.shape}", pixels.tobytes())),
        ]
    )
    return Reader(
        name,
        num_images,
        str,
        read,
        probe_fingerprint,
        _LazyLabels(name, dataset, num_images) if isinstance(sample[0], tuple) else None,
        no_cache=True,
        notes=(BINARY_NOTE,) if binary else (),
    )


def _num_items(dataset: Any) -> int:
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        name = type(dataset).__name__
        raise CardiganError(f"{name} has no length: expected a map-style dataset, with access by index.") from None


def _item(dataset: Any, index: int) -> object:
    try:
        return dataset[index]
    except ITEM_ERRORS as error:
        raise UnreadableImage(f"cannot be read ({error_reason(error)})") from None


def _readable_items(dataset: Any, indices: Iterable[int]) -> Iterator[object]:
    for index in indices:
        try:
            yield _item(dataset, index)
        except UnreadableImage:  # reported when it is accessed
            continue


def _item_pixels(name: str, item: object) -> np.ndarray:
    image = item[0] if isinstance(item, tuple) and item else item
    if isinstance(image, Image.Image):
        upright = ImageOps.exif_transpose(image)
        return to_uint8(
            np.array(
                upright if upright.mode in HIGH_BIT_DEPTH_MODES else upright.convert(PIL_MODES[num_channels(upright)])
            )
        )
    if isinstance(image, np.ndarray | torch.Tensor):
        array = to_numpy(image)
        return array.transpose(
            channels_last_axes(name, (1, *array.shape), channels_first=isinstance(image, torch.Tensor))
        )
    raise CardiganError(
        f"{name} returns {type(image).__name__}: expected a Pillow image, an array or a tensor, or (image, class)."
    )


class _LazyLabels(Sequence[str | int | None]):
    """The classes of a dataset's items, read one by one on access."""

    def __init__(self, name: str, dataset: Any, count: int) -> None:
        self._name = name
        self._dataset = dataset
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[position] for position in range(self._count)[index]]
        try:
            item = _item(self._dataset, range(self._count)[index])
        except UnreadableImage:
            return None
        return class_label(self._name, item[1]) if isinstance(item, tuple) and len(item) > 1 else None
