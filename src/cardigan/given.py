"""Pictures and classes as people hold them in Python: arrays, tensors, lists, datasets; and classes by the values they were given as.

Reads nothing from a disk.
"""

import math
from collections.abc import Sequence
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from cardigan.data.formats.arrays import FIRST, array_reader, labels_of_array
from cardigan.data.formats.torch_dataset import dataset_reader
from cardigan.data.reader import Reader
from cardigan.data.source import ImageSpec
from cardigan.errors import CardiganError

Given: TypeAlias = "np.ndarray | torch.Tensor | Sequence[Any] | Dataset[Any]"

LARGEST_UNIT, DARK = 1.02, 64.0
"""Floats up to the first are in [0, 1]; above the second they can be pixels from 0 to 255."""


class Listed(Dataset[Any]):
    """A list of pictures, each with its class if there are any."""

    def __init__(self, pictures: Sequence[Any], classes: Sequence[str | int | None] | None) -> None:
        self.pictures, self.classes = pictures, classes

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Any:
        return self.pictures[index] if self.classes is None else (self.pictures[index], self.classes[index])


def given_reader(pictures: Given, classes: Any = None) -> Reader:
    """Return pictures as a training reads them; raises CardiganError for flat ones, for other kinds, and for classes that are not one for each."""
    if isinstance(pictures, np.ndarray | torch.Tensor):
        _check_not_flat(pictures)
        _check_range(pictures)
        return array_reader(pictures, None if classes is None else _column(classes))
    if isinstance(pictures, Dataset):
        if classes is not None:
            raise CardiganError("A Dataset tells its classes itself, as (picture, class): leave y out, or give the pictures as an array or a list.")
        return dataset_reader(pictures)
    if isinstance(pictures, list | tuple) and pictures and all(isinstance(one, np.ndarray | torch.Tensor | Image.Image) for one in pictures):
        labels = None if classes is None else labels_of_array("list", _column(classes), len(pictures))
        return dataset_reader(Listed(pictures, labels))
    raise CardiganError(
        f"X is {_kind(pictures)}: expected an array or a tensor [N, height, width] or [N, height, width, channels], a list of arrays or of Pillow's "
        "pictures, or a torch Dataset; a folder or an archive is for cardigan.train."
    )


def tells_classes(reader: Reader) -> bool:
    """Return whether any of the first pictures has a class."""
    return any(label is not None for label in islice(reader.labels or (), FIRST))


def _kind(given: object) -> str:
    return f"a {type(given).__name__}" + (f" of {type(given[0]).__name__}" if isinstance(given, list | tuple) and given else "")


def _column(classes: Any) -> Any:
    """Return classes as a list or an array; a column of a table gives its values. Raises CardiganError for words that would be one class."""
    column = classes if isinstance(classes, list | tuple | np.ndarray | torch.Tensor) else np.asarray(classes)
    if isinstance(column, np.ndarray) and column.dtype == object:
        column = column.tolist()
    if isinstance(column, torch.Tensor) or (isinstance(column, np.ndarray) and column.dtype.kind != "U"):
        return column
    words: dict[object, str] = {}
    for word in (each for each in column if isinstance(each, str)):
        known = words.setdefault(int(word) if word.removeprefix("-").isdecimal() else word, word)
        if known != word:
            raise CardiganError(f"y holds {known!r} and {word!r}, which are the same number: write it one way, or name the classes otherwise.")
    return column


def _check_not_flat(pictures: np.ndarray | torch.Tensor) -> None:
    if pictures.ndim != 2:
        return
    count, size = pictures.shape
    side = math.isqrt(size)
    how = f"X.reshape(-1, {side}, {side}), if they are square" if side * side == size else "X.reshape(-1, height, width)"
    raise CardiganError(f"X has the shape {(count, size)}, pictures laid flat, and what lies beside what is lost: give {how}.")


def _check_range(pictures: np.ndarray | torch.Tensor) -> None:
    """Raise CardiganError for floats beyond 1 but so far below 255 that all would be seen as black, as scikit-learn's digits, 0 to 16."""
    array = pictures if isinstance(pictures, np.ndarray) else pictures.detach().float().cpu().numpy()
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array[:0]
    largest = float(finite.max()) if finite.size else 0.0
    if LARGEST_UNIT < largest <= DARK:
        raise CardiganError(f"X holds floats up to {largest:g}: expected 0 to 1, -1 to 1 or 0 to 255. Scale it, as in X / {largest:g}.")


def class_values(spec: ImageSpec) -> np.ndarray | None:
    """Return the classes as they were given, sorted, whole numbers as such; None without classes."""
    if not spec.classes:
        return None
    names = spec.class_names or tuple(str(number) for number in range(spec.classes))
    whole = all(name.removeprefix("-").isdecimal() for name in names)
    return np.array([int(name) for name in names]) if whole else np.array(names)


def numbers_of(classes: Any, known: np.ndarray | None) -> list[int]:
    """Return the number of each class given by its value; raises CardiganError for one that was not there when fitting."""
    if known is None:
        raise CardiganError("This GAN was fitted without classes: leave y out, or fit it with one.")
    values = np.atleast_1d(np.asarray(classes)).tolist()
    places = {str(value): place for place, value in enumerate(known.tolist())}  # '5' and 5 are the same class
    unseen = [value for value in values if str(value) not in places]
    if unseen:
        raise CardiganError(
            f"y holds {unseen[0]!r}: expected one of {', '.join(map(repr, known.tolist()[:20]))}{', ...' if len(known) > 20 else ''}."
        )
    return [places[str(value)] for value in values]
