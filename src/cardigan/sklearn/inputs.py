"""Converts arrays, tensors, lists and datasets to a reader, and class values to class indices.

Reads nothing from disk.
"""

import math
from collections.abc import Sequence
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from cardigan.data.formats.arrays import NUM_PROBED, array_labels, array_reader
from cardigan.data.formats.torch_dataset import torch_dataset_reader
from cardigan.data.reader import Reader
from cardigan.data.source import ImageSpec
from cardigan.errors import CardiganError

ImagesLike: TypeAlias = "np.ndarray | torch.Tensor | Sequence[Any] | Dataset[Any]"

COMPLEX_TYPES = (np.complex64, np.complex128, torch.complex64, torch.complex128)
MAX_UNIT_VALUE, MAX_SUSPECT_VALUE = 1.02, 64.0
"""Floats up to the first value are in [0, 1] or [-1, 1]; above the second they may be pixels from 0 to 255."""


class ListDataset(Dataset[Any]):
    """A list of images, with a class each if there are any."""

    def __init__(self, images: Sequence[Any], labels: Sequence[str | int | None] | None) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        return self.images[index] if self.labels is None else (self.images[index], self.labels[index])


def make_reader(images: ImagesLike, labels: Any = None) -> Reader:
    """Return a reader of the images; raises CardiganError for flattened images, other types, and invalid labels."""
    if isinstance(images, np.ndarray | torch.Tensor):
        if images.dtype in COMPLEX_TYPES:
            raise CardiganError("Complex data not supported: give real numbers, from 0 to 1 or 0 to 255.")
        _check_not_flat(images)
        _check_range(images)
        return array_reader(images, None if labels is None else _as_labels(labels))
    if isinstance(images, Dataset):
        if labels is not None:
            raise CardiganError(
                "A Dataset yields its classes as (image, class): leave y out, or give the images as an array or list."
            )
        return torch_dataset_reader(images)
    if (
        isinstance(images, list | tuple)
        and images
        and all(isinstance(one, np.ndarray | torch.Tensor | Image.Image) for one in images)
    ):
        dataset_labels = None if labels is None else array_labels("list", _as_labels(labels), len(images))
        return torch_dataset_reader(ListDataset(images, dataset_labels))
    if type(images).__module__.startswith("scipy.sparse"):
        raise CardiganError("X is sparse, which is not supported for images: give X.toarray(), reshaped to images.")
    raise CardiganError(
        f"X is {_type_name(images)}: expected an array or tensor [N, height, width] or [N, height, width, channels], a "
        "list of arrays or Pillow images, or a torch Dataset. Use cardigan.train for a folder or an archive."
    )


def has_labels(reader: Reader) -> bool:
    """Return whether any of the first images has a class."""
    return any(label is not None for label in islice(reader.labels or (), NUM_PROBED))


def _type_name(images: object) -> str:
    return f"a {type(images).__name__}" + (
        f" of {type(images[0]).__name__}" if isinstance(images, list | tuple) and images else ""
    )


def _as_labels(labels: Any) -> Any:
    """Return classes as a list or array (also from a table column); raises CardiganError for ambiguous numbers."""
    column = labels if isinstance(labels, list | tuple | np.ndarray | torch.Tensor) else np.asarray(labels)
    if isinstance(column, np.ndarray) and column.dtype == object:
        column = column.tolist()
    if isinstance(column, torch.Tensor) or (isinstance(column, np.ndarray) and column.dtype.kind != "U"):
        return column
    words: dict[object, str] = {}
    for word in (each for each in column if isinstance(each, str)):
        previous = words.setdefault(int(word) if word.removeprefix("-").isdecimal() else word, word)
        if previous != word:
            raise CardiganError(
                f"y contains {previous!r} and {word!r}, which are the same number: use one spelling, or other names."
            )
    return column


def _check_not_flat(images: np.ndarray | torch.Tensor) -> None:
    if images.ndim != 2:
        return
    count, size = images.shape
    side = math.isqrt(size)
    suggestion = (
        f"X.reshape(-1, {side}, {side}), if they are square" if side * side == size else "X.reshape(-1, height, width)"
    )
    raise CardiganError(
        f"X has shape {(count, size)}: the images are flattened and their height and width unknown. Give {suggestion}."
    )


def _check_range(images: np.ndarray | torch.Tensor) -> None:
    """Raise CardiganError for floats above 1 but far below 255, such as scikit-learn's digits (0 to 16).

    As pixels from 0 to 255, all of them would be nearly black.
    """
    array = images if isinstance(images, np.ndarray) else images.detach().float().cpu().numpy()
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array[:0]
    largest = float(finite.max()) if finite.size else 0.0
    if MAX_UNIT_VALUE < largest <= MAX_SUSPECT_VALUE:
        raise CardiganError(
            f"X contains floats up to {largest:g}: expected 0 to 1, -1 to 1 or 0 to 255. Scale it: X / {largest:g}."
        )


def class_values(spec: ImageSpec) -> np.ndarray | None:
    """Return the sorted class values as given in `fit`, integers as integers; None without classes."""
    if not spec.num_classes:
        return None
    names = spec.class_names or tuple(str(number) for number in range(spec.num_classes))
    whole = all(name.removeprefix("-").isdecimal() for name in names)
    return np.array([int(name) for name in names]) if whole else np.array(names)


def class_indices(labels: Any, class_values_: np.ndarray | None) -> list[int]:
    """Return the index of each class value; raises CardiganError for one that was not in `fit`."""
    if class_values_ is None:
        raise CardiganError("This GAN was fitted without classes: leave y out, or fit it with y.")
    values = np.atleast_1d(np.asarray(labels)).tolist()
    index_of = {str(value): index for index, value in enumerate(class_values_.tolist())}  # '5' and 5 are the same class
    unseen = [value for value in values if str(value) not in index_of]
    if unseen:
        expected = ", ".join(map(repr, class_values_.tolist()[:20])) + (", ..." if len(class_values_) > 20 else "")
        raise CardiganError(f"y contains {unseen[0]!r}: expected one of {expected}.")
    return [index_of[str(value)] for value in values]
