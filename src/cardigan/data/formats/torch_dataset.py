"""Pictures of a torch dataset that is asked for by number, whatever it makes them from: Pillow's pictures, arrays or tensors.

Does not know how the dataset reads them, nor whether it always gives the same.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import Dataset

from cardigan.data.decoding import DEEP, MODES, channels_of, eight_bits
from cardigan.data.formats.arrays import FIRST, class_of, item_axes, numpy_of, scaling
from cardigan.data.formats.entries import reason
from cardigan.data.reader import Reader, Unreadable, fingerprint
from cardigan.errors import CardiganError

FAILURES = (OSError, EOFError, ValueError, SyntaxError, RuntimeError)
"""What a dataset raises for a picture that it cannot read."""


def dataset_reader(dataset: Dataset[Any]) -> Reader:
    """Return the pictures of a torch dataset with a length, each item a picture or a tuple of picture and class.

    Pictures are Pillow's, arrays or tensors, with channels first or last, in the ranges that `array_reader` takes. The fingerprint is made of the
    first 100 items and the number of all. A class is found out by reading its item.
    """
    name, count = type(dataset).__name__, _length(dataset)
    sample = list(_readable(dataset, range(min(FIRST, count))))
    if not sample:
        raise CardiganError(f"{name} gives none of its first {FIRST} pictures: expected a dataset of pictures that can be read.")
    pictures = [_pixels(name, item) for item in sample]
    deeper = [pixels for pixels in pictures if pixels.dtype != np.uint8]
    scaled = scaling(name, deeper) if deeper else np.array

    def read(index: int) -> np.ndarray:
        pixels = _pixels(name, _item(dataset, index))
        return pixels if pixels.dtype == np.uint8 else scaled(pixels)

    mark = fingerprint([name, count, *(part for pixels in pictures for part in (f"{pixels.dtype} {pixels.shape}", pixels.tobytes()))])
    return Reader(name, count, str, read, mark, _Classes(name, dataset, count) if isinstance(sample[0], tuple) else None, passing=True)


def _length(dataset: Any) -> int:
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        name = type(dataset).__name__
        raise CardiganError(f"{name} has no length: expected a dataset whose pictures can be asked for by number.") from None


def _item(dataset: Any, index: int) -> object:
    try:
        return dataset[index]
    except FAILURES as error:
        raise Unreadable(f"cannot be read ({reason(error)})") from None


def _readable(dataset: Any, indices: Iterable[int]) -> Iterator[object]:
    for index in indices:
        try:
            yield _item(dataset, index)
        except Unreadable:  # told of when it is asked for
            continue


def _pixels(name: str, item: object) -> np.ndarray:
    picture = item[0] if isinstance(item, tuple) and item else item
    if isinstance(picture, Image.Image):
        upright = ImageOps.exif_transpose(picture)
        return eight_bits(np.array(upright if upright.mode in DEEP else upright.convert(MODES[channels_of(upright)])))
    if isinstance(picture, np.ndarray | torch.Tensor):
        array = numpy_of(picture)
        return array.transpose(item_axes(name, (1, *array.shape), channels_first=isinstance(picture, torch.Tensor)))
    raise CardiganError(f"{name} gives {type(picture).__name__}: expected a picture of Pillow's, an array or a tensor, or (picture, class).")


class _Classes(Sequence[str | int | None]):
    """The classes of a dataset's items, read one by one as they are asked for."""

    def __init__(self, name: str, dataset: Any, count: int) -> None:
        self._name = name
        self._dataset = dataset
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(self._count)[index]]
        try:
            item = _item(self._dataset, range(self._count)[index])
        except Unreadable:
            return None
        return class_of(self._name, item[1]) if isinstance(item, tuple) and len(item) > 1 else None
