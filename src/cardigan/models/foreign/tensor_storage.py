"""What a file of weights says of its tensors before any is made: numbers in a row, and the strides in which a tensor sees them.

Knows no file format.
"""

from dataclasses import dataclass
from math import prod

import torch

MAX_DIMS = 8


class UnsupportedFile(Exception):
    """A file that is not read; says why, in words that follow its name: "is cut off"."""


@dataclass(frozen=True)
class Storage:
    """Numbers in a row, by the name they have in the file."""

    key: str
    dtype: torch.dtype
    count: int

    def __post_init__(self) -> None:
        if type(self.key) is not str or type(self.count) is not int or self.count < 1:
            raise UnsupportedFile("describes numbers without a name or a count")

    @property
    def num_bytes(self) -> int:
        return self.count * self.dtype.itemsize


@dataclass(frozen=True)
class StridedTensor:
    """A tensor in a storage. Raises Refused for one that leaves its storage, or has more elements than that."""

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
            raise UnsupportedFile("describes a tensor by an offset, sides or strides that no tensor has")
        last = self.offset + sum((dim - 1) * stride for dim, stride in zip(self.shape, self.strides, strict=True))
        if 0 in self.shape or prod(self.shape) > self.storage.count or last >= self.storage.count:
            raise UnsupportedFile(
                f"describes a tensor of shape {self.shape} that its {self.storage.count:,} numbers do not hold"
            )

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * self.storage.dtype.itemsize


def check_storage_size(storage: Storage, num_bytes: int) -> None:
    """Raise Refused unless a storage has as many bytes as are described."""
    if num_bytes != storage.num_bytes:
        raise UnsupportedFile(
            f"has {num_bytes:,} bytes where it describes {storage.count:,} numbers of {storage.dtype.itemsize} bytes"
        )


def materialize_tensor(content: bytearray, strided_tensor: StridedTensor) -> torch.Tensor:
    """Return a tensor of its own from the bytes of its storage; raises Refused if there are more or fewer of them than described."""
    check_storage_size(strided_tensor.storage, len(content))
    values = torch.frombuffer(content, dtype=strided_tensor.storage.dtype)
    return values.as_strided(strided_tensor.shape, strided_tensor.strides, strided_tensor.offset).clone(
        memory_format=torch.contiguous_format
    )
