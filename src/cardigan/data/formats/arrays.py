"""Pictures in one array: the order of its axes, the range of its numbers and its labels are found out, items are read as asked for.

Knows no file format; `array_files.py` and `databases.py` bring what lies on a disk.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np
import torch

from cardigan.data.formats.columns import label_of
from cardigan.data.reader import Reader, Unreadable, fingerprint
from cardigan.errors import CardiganError

CHANNELS = (1, 3, 4)
RANGES = ((0, 1), (-1, 1), (0, 255))
SLACK = 0.02
"""Floats may leave their range by this much: resizing overshoots a little, and no other range is meant."""
FIRST = 100
"""How many pictures, from the first, tell the range of an array's numbers."""

Item: TypeAlias = Callable[[int], np.ndarray]
Values: TypeAlias = Sequence[object] | np.ndarray | torch.Tensor


def array_reader(pixels: np.ndarray | torch.Tensor, labels: Values | None = None, name: str = "array") -> Reader:
    """Return the pictures of an array in memory.

    Shapes are [N, height, width], [N, height, width, C] or [N, C, height, width] with 1, 3 or 4 channels; where both of the latter could be
    meant, an array has its channels last and a tensor first. Values are 8 or 16 bits, booleans, or floats from 0 to 1, from -1 to 1 or from 0
    to 255: the first 100 pictures tell which. Labels are a number or a word for each picture, or a one-hot row.
    """
    array = numpy_of(pixels)
    return reader_of_items(
        name,
        array.shape,
        lambda index: array[index],
        _content_mark(array),
        None if labels is None else labels_of_array(name, labels, len(array)),
        channels_first=isinstance(pixels, torch.Tensor),
    )


def numpy_of(values: np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return values
    return (values.float() if values.dtype == torch.bfloat16 else values).detach().cpu().numpy()


def _content_mark(array: np.ndarray) -> str:
    def parts() -> Iterator[str | bytes]:
        yield f"{array.dtype} {array.shape}"
        yield from (np.ascontiguousarray(item).tobytes() for item in np.atleast_1d(array))

    return fingerprint(parts())


def reader_of_items(
    name: str, shape: Sequence[int], item: Item, mark: str, labels: Sequence[str | int | None] | None, channels_first: bool = False
) -> Reader:
    """Return the pictures of anything that has the shape of an array and gives its items one by one."""
    axes = item_axes(name, shape, channels_first)
    scaled = scaling(name, [item(index) for index in range(min(FIRST, shape[0]))])
    return Reader(name, shape[0], str, lambda index: scaled(item(index).transpose(axes)), mark, labels)


def item_axes(name: str, shape: Sequence[int], channels_first: bool = False) -> tuple[int, ...]:
    """Return the order that brings an item's axes to height, width and channels; raises CardiganError for a shape that is not of pictures."""
    if 0 not in shape:
        if len(shape) == 3 and shape[2] not in CHANNELS:
            return 0, 1
        if len(shape) == 4 and shape[3] in CHANNELS and not (channels_first and shape[1] in CHANNELS):
            return 0, 1, 2
        if len(shape) == 4 and shape[1] in CHANNELS:
            return 1, 2, 0
    raise CardiganError(
        f"{name!r} has the shape {tuple(shape)}: expected [pictures, height, width], [pictures, height, width, channels] or "
        "[pictures, channels, height, width], with 1, 3 or 4 channels. Reshape it."
    )


def scaling(name: str, sample: Sequence[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Return what turns items like these into 8 or 16 bits (or booleans); raises CardiganError for values that cannot be pixels."""
    kind, size = sample[0].dtype.kind, sample[0].dtype.itemsize
    if kind == "b" or (kind == "u" and size == 1):
        return np.array
    if kind == "u" and size == 2:
        return lambda pixels: pixels.astype(np.uint16)
    if kind not in "fiu":
        raise CardiganError(f"{name!r} holds values of type {sample[0].dtype}: expected 8 or 16 bits, booleans or floats.")
    low, high = _limits(sample)
    for least, most in RANGES if kind == "f" else RANGES[2:]:
        if least - SLACK <= low and high <= most + SLACK:
            return partial(_eight_bits, least, most)
    raise CardiganError(
        f"{name!r} holds numbers from {low:g} to {high:g}: expected 0 to 1, -1 to 1 or 0 to 255 (whole numbers: 0 to 255). Scale it to one of these."
    )


def _limits(sample: Sequence[np.ndarray]) -> tuple[float, float]:
    finite = [item[np.isfinite(item)] for item in sample]
    ends = [(float(item.min()), float(item.max())) for item in finite if item.size] or [(0.0, 0.0)]
    return min(low for low, _ in ends), max(high for _, high in ends)


def _eight_bits(least: int, most: int, pixels: np.ndarray) -> np.ndarray:
    if not np.isfinite(pixels).all():
        raise Unreadable("holds numbers that are not finite")
    return ((pixels.astype(np.float64) - least) * (255 / (most - least))).round().clip(0, 255).astype(np.uint8)


def labels_of_array(name: str, labels: Values, count: int) -> list[str | int | None]:
    """Return a class for each of `count` pictures from numbers, words or one-hot rows; raises CardiganError for anything else."""
    if len(labels) != count:
        raise CardiganError(f"{name!r} has {count:,} pictures and {len(labels):,} labels: give one for each picture.")
    if not isinstance(labels, np.ndarray | torch.Tensor):
        return [class_of(name, label) for label in labels]
    values = numpy_of(labels)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2 and values.dtype.kind in "biuf" and ((values == 0) | (values == 1)).all() and (values.sum(axis=1) == 1).all():
        return values.argmax(axis=1).tolist()
    if values.ndim == 1 and (values.dtype.kind in "US" or (values.dtype.kind in "biuf" and (values == np.floor(values)).all())):
        return [class_of(name, value) for value in values]
    raise CardiganError(f"{name!r} has labels of shape {values.shape} and type {values.dtype}: expected a whole number or a word for each picture.")


def class_of(name: str, label: object) -> str | int | None:
    """Return one label as text or a whole number, also from a number of NumPy's or torch's; raises CardiganError for anything else."""
    return label_of(name, label.item() if isinstance(label, np.generic | torch.Tensor) else label)
