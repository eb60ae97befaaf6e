"""Numbers and classes as a caller gives them: checked, and made tensors."""

import operator
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch

from cardigan.data.source import ImageSpec
from cardigan.errors import CardiganError
from cardigan.models.sampling import class_index

MAX_SAMPLES = 10_000_000
LabelsLike: TypeAlias = int | str | Sequence[int] | Sequence[str] | np.ndarray | torch.Tensor
"""One class for all images or one per image, by number or by name."""


def validate_count(name: str, count: object) -> int:
    """Return a valid number of images, or raise CardiganError."""
    return validate_integer(name, count, MAX_SAMPLES, 1)


def validate_integer(name: str, value: object, maximum: int, minimum: int = 0) -> int:
    """Return an integer (also of NumPy or torch) within minimum..maximum; raises CardiganError for anything else."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # pyright: ignore[reportArgumentType]
    except TypeError as error:
        raise CardiganError(f"{name} is {value!r}: expected an integer, {minimum}..{maximum}.") from error
    if not minimum <= number <= maximum:
        raise CardiganError(f"{name} is {number}: expected {minimum}..{maximum}.")
    return number


def label_tensor(labels: LabelsLike | None, count: int, spec: ImageSpec) -> torch.Tensor | None:
    """Return the labels as a tensor; a single label is repeated for every image."""
    if labels is None:
        return None
    try:
        array = np.atleast_1d(np.asarray(labels.detach().cpu() if isinstance(labels, torch.Tensor) else labels))
    except ValueError as error:
        raise CardiganError(
            "labels are lists of different lengths: give one class for all images, or one per image."
        ) from error
    if array.ndim != 1:
        raise CardiganError(f"labels have shape {array.shape}: give one class for all images, or one per image.")
    values = torch.tensor([class_index(label, spec) for label in array.tolist()], dtype=torch.long)
    return values.expand(count) if len(values) == 1 else values
