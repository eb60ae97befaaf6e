"""Descriptions of storages and strided tensors, which are checked before any tensor is allocated."""

from dataclasses import dataclass
from math import prod

import torch

MAX_DIMS = 8


class UnsupportedFile(Exception):
    """A file that is not supported. The message continues a sentence after the file's name: "is truncated"."""


@dataclass(frozen=True)
class Storage:
    """A contiguous array of numbers, identified by its key in the file."""

    key: str
    dtype: torch.dtype
    count: int

    def __post_init__(self) -> None:
        if type(self.key) is not str or type(self.count) is not int or self.count < 1:
            raise UnsupportedFile("describes a storage without a valid key or count")

    @property
    def num_bytes(self) -> int:
        return self.count * self.dtype.itemsize


@dataclass(frozen=True)
class StridedTensor:
    """A tensor in a storage. Raises UnsupportedFile if it exceeds the storage or has more elements than it."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.shape, *self.strides)
        if (
            not all(type(number) is int and 0 <= number < 2**40 for number in numbers)
            or not len(self.shape) == len(self.strides) <= MAX_DIMS
        ):
            raise UnsupportedFile("describes a tensor with an invalid offset, shape or strides")
        last = self.offset + sum((dim - 1) * stride for dim, stride in zip(self.shape, self.strides, strict=True))
        if 0 in self.shape or prod(self.shape) > self.storage.count or last >= self.storage.count:
            raise UnsupportedFile(
                f"describes a tensor of shape {self.shape} that does not fit in its storage of "
                f"{self.storage.count:,} numbers"
            )

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * self.storage.dtype.itemsize


def check_storage_size(storage: Storage, num_bytes: int) -> None:
    """Raise UnsupportedFile unless a storage has the described number of bytes."""
    if num_bytes != storage.num_bytes:
        raise UnsupportedFile(
            f"has a storage of {num_bytes:,} bytes, but describes {storage.count:,} numbers of "
            f"{storage.dtype.itemsize} bytes"
        )


def materialize_tensor(content: bytearray, strided_tensor: StridedTensor) -> torch.Tensor:
    """Return a tensor with its own memory from the bytes of its storage.

    Raises UnsupportedFile for a wrong number of bytes.
    """
    check_storage_size(strided_tensor.storage, len(content))
    values = torch.frombuffer(content, dtype=strided_tensor.storage.dtype)
    return values.as_strided(strided_tensor.shape, strided_tensor.strides, strided_tensor.offset).clone(
        memory_format=torch.contiguous_format
    )
