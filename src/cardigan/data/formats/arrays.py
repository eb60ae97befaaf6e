"""Images in one array: detects the axis order, the value range and the labels. Items are read on access.

Knows no file format; `numpy_files.py`, `idx.py` and `hdf5.py` open the files.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from cardigan.data.formats.array_names import column_index
from cardigan.data.formats.columns import cell_label
from cardigan.data.reader import Reader, UnreadableImage, fingerprint, stat_signature
from cardigan.errors import CardiganError

IMAGE_KEYS = ("images", "x", "arr_0", "x_train", "data")
LABEL_KEYS = ("y", "labels", "label", "y_train", "arr_1", "targets")
"""Default names of arrays, in files that hold several."""
CHANNEL_COUNTS = (1, 3, 4)
VALUE_RANGES = ((0, 1), (-1, 1), (0, 255))
RANGE_TOLERANCE = 0.02
"""Tolerance of the ranges for floats: resizing overshoots a little."""
NUM_PROBED = 100
"""Number of first images, and of images spread over the rest, from which the value range is detected."""
OVERSHOOT = 0.5
"""Maximum distance of a value from the detected range, as a fraction of the range. Such values are clipped."""
BINARY_NOTE = "pixels: only the values 0 and 1, scaled to 0 and 255"

ItemReader: TypeAlias = Callable[[int], np.ndarray]
LabelValues: TypeAlias = Sequence[object] | np.ndarray | torch.Tensor


def array_reader(pixels: np.ndarray | torch.Tensor, labels: LabelValues | None = None, name: str = "array") -> Reader:
    """Return the images of an array in memory.

    Shapes are [N, height, width], [N, height, width, C] or [N, C, height, width] with 1, 3 or 4 channels. If both of
    the latter fit, an array is channels-last and a tensor is channels-first. Values are 8 or 16 bits, booleans, or
    floats from 0 to 1, -1 to 1 or 0 to 255; the range is detected from up to 200 images. Integers that are only 0 and 1
    are scaled to 0 and 255. Labels are an integer, a string or a one-hot row per image.
    """
    array = to_numpy(pixels)
    return items_reader(
        name,
        array.shape,
        lambda index: array[index],
        _content_fingerprint(array),
        None if labels is None else array_labels(name, labels, len(array)),
        channels_first=isinstance(pixels, torch.Tensor),
    )


def to_numpy(values: np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return values
    return (values.float() if values.dtype == torch.bfloat16 else values).detach().cpu().numpy()


def _content_fingerprint(array: np.ndarray) -> str:
    def parts() -> Iterator[str | bytes]:
        yield f"{array.dtype} {array.shape}"
        yield from (np.ascontiguousarray(item).tobytes() for item in np.atleast_1d(array))

    return fingerprint(parts())


def array_file_reader(path: Path, pixels: np.ndarray, labels: np.ndarray | None) -> Reader:
    """Return the images of an array that a file holds."""
    classes = None if labels is None else array_labels(str(path), labels, len(pixels))
    return items_reader(
        str(path), pixels.shape, lambda index: pixels[index], fingerprint([stat_signature(path)]), classes
    )


def items_reader(
    name: str,
    shape: Sequence[int],
    read_item: ItemReader,
    content_fingerprint: str,
    labels: Sequence[str | int | None] | None,
    channels_first: bool = False,
) -> Reader:
    """Return the images of a source with the shape of an array that reads its items one by one."""
    axes = channels_last_axes(name, shape, channels_first)
    sample = [read_item(index) for index in probed_indices(shape[0])]
    to_pixels = pixel_converter(name, sample)
    return Reader(
        name,
        shape[0],
        str,
        lambda index: to_pixels(read_item(index).transpose(axes)),
        content_fingerprint,
        labels,
        notes=(BINARY_NOTE,) if is_binary(sample) else (),
    )


def probed_indices(count: int) -> list[int]:
    """Return the indices from which the value range is detected: the first ones, and as many spread over the rest."""
    spread = range(NUM_PROBED, count, max(1, (count - NUM_PROBED) // NUM_PROBED))
    return [*range(min(NUM_PROBED, count)), *spread[:NUM_PROBED]]


def is_binary(sample: Sequence[np.ndarray]) -> bool:
    """Return whether integers are only 0 and 1, with at least one 1."""
    return sample[0].dtype.kind in "iu" and _value_range(sample) == (0.0, 1.0)


def channels_last_axes(name: str, shape: Sequence[int], channels_first: bool = False) -> tuple[int, ...]:
    """Return the permutation of an item's axes to height, width and channels. Raises CardiganError for other shapes."""
    if 0 not in shape:
        if len(shape) == 3 and shape[2] not in CHANNEL_COUNTS:
            return 0, 1
        if len(shape) == 4 and shape[3] in CHANNEL_COUNTS and not (channels_first and shape[1] in CHANNEL_COUNTS):
            return 0, 1, 2
        if len(shape) == 4 and shape[1] in CHANNEL_COUNTS:
            return 1, 2, 0
    raise CardiganError(
        f"{name!r} has the shape {tuple(shape)}: expected [images, height, width], [images, height, width, channels] "
        "or [images, channels, height, width] with 1, 3 or 4 channels. Reshape it."
    )


def pixel_converter(name: str, sample: Sequence[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Return the conversion of such items to 8 or 16 bits or booleans. Raises CardiganError for other values."""
    kind, size = sample[0].dtype.kind, sample[0].dtype.itemsize
    if is_binary(sample):
        return partial(_scale_to_uint8, 0, 1)
    if kind == "b" or (kind == "u" and size == 1):
        return np.array
    if kind == "u" and size == 2:
        return lambda pixels: pixels.astype(np.uint16)
    if kind not in "fiu":
        raise CardiganError(
            f"{name!r} holds values of type {sample[0].dtype}: expected 8 or 16 bits, booleans or floats."
        )
    low, high = _value_range(sample)
    for low_end, high_end in VALUE_RANGES if kind == "f" else VALUE_RANGES[2:]:
        if low_end - RANGE_TOLERANCE <= low and high <= high_end + RANGE_TOLERANCE:
            return partial(_scale_to_uint8, low_end, high_end)
    raise CardiganError(
        f"{name!r} holds values from {low:g} to {high:g}: expected 0 to 1, -1 to 1 or 0 to 255 (integers: 0 to 255). "
        "Scale it to one of these."
    )


def _value_range(sample: Sequence[np.ndarray]) -> tuple[float, float]:
    finite = [item[np.isfinite(item)] for item in sample]
    ranges = [(float(item.min()), float(item.max())) for item in finite if item.size] or [(0.0, 0.0)]
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _scale_to_uint8(low_end: int, high_end: int, pixels: np.ndarray) -> np.ndarray:
    if not np.isfinite(pixels).all():
        raise UnreadableImage("holds values that are not finite")
    low, high = (float(pixels.min()), float(pixels.max())) if pixels.size else (low_end, high_end)
    if low < low_end - OVERSHOOT * (high_end - low_end) or high > high_end + OVERSHOOT * (high_end - low_end):
        raise UnreadableImage(
            f"holds values from {low:g} to {high:g}, but the images that were sampled hold {low_end} to {high_end}"
        )
    return ((pixels.astype(np.float64) - low_end) * (255 / (high_end - low_end))).round().clip(0, 255).astype(np.uint8)


def array_labels(name: str, labels: LabelValues, count: int) -> list[str | int | None]:
    """Return the classes of `count` images from integers, strings or one-hot rows; raises CardiganError for others."""
    if len(labels) != count:
        raise CardiganError(f"{name!r} has {count:,} images and {len(labels):,} labels: give one for each image.")
    if not isinstance(labels, np.ndarray | torch.Tensor):
        return [class_label(name, label) for label in labels]
    values = to_numpy(labels)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if (
        values.ndim == 2
        and values.dtype.kind in "biuf"
        and ((values == 0) | (values == 1)).all()
        and (values.sum(axis=1) == 1).all()
    ):
        return values.argmax(axis=1).tolist()
    if values.ndim == 1 and (
        values.dtype.kind in "US" or (values.dtype.kind in "biuf" and (values == np.floor(values)).all())
    ):
        return [class_label(name, value) for value in values]
    hint = " Take one of its columns: --data.labels NAME:NUMBER." if values.ndim == 2 else ""
    raise CardiganError(
        f"{name!r} has labels of shape {values.shape} and type {values.dtype}: "
        f"expected an integer or a string for each image.{hint}"
    )


def column_of(name: str, values: np.ndarray, column: str, text_arrays: Callable[[int], Sequence[str]]) -> np.ndarray:
    """Return a column of labels [N, K] or of a structured array, by its number or name.

    `text_arrays` returns the names of K columns, if the file holds them.
    """
    if values.dtype.names:
        return values[values.dtype.names[column_index(name, column, len(values.dtype.names), values.dtype.names)]]
    if values.ndim != 2:
        raise CardiganError(f"{name!r} has labels of shape {values.shape}, without columns: leave {column!r} out.")
    return values[:, column_index(name, column, values.shape[1], text_arrays(values.shape[1]))]


def class_label(name: str, label: object) -> str | int | None:
    """Return a label as a string or an integer, also from a NumPy or torch scalar; raises CardiganError for others."""
    return cell_label(name, label.item() if isinstance(label, np.generic | torch.Tensor) else label)
