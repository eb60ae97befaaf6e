"""MXNet's `.params` files: a list of arrays and a list of their names, as `mx.nd.save` and `Module.save_params` write them.

All four ways in which MXNet wrote an array are read (before 1.0, V1, V2, and V3 of its NumPy arrays); sparse arrays are not.
"""

from math import prod

import torch

from cardigan.foreign.described import Refused, Storage, Strided, tensor_of

BEGIN = (0x112).to_bytes(8, "little")
V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
DTYPES = {0: torch.float32, 1: torch.float64, 2: torch.float16, 3: torch.uint8, 4: torch.int32, 5: torch.int8, 6: torch.int64, 12: torch.bfloat16}
MOST_ARRAYS = 10_000
MOST_AXES = 8
LONGEST_NAME = 1_000
KINDS = ("arg:", "aux:")
"""What Module puts before a name: a parameter, or what a layer remembers beside its parameters."""


def mxnet_tensors(content: bytes) -> dict[str, torch.Tensor]:
    """Return the arrays of a file by name, without arg: and aux:. Raises Refused for what is damaged, sparse or of an unknown type."""
    cursor = Cursor(memoryview(content))
    cursor.taken(16)  # how it begins, and eight bytes in reserve
    arrays = [_array(cursor) for _ in range(_count(cursor))]
    names = [_name(cursor) for _ in range(_count(cursor))]
    if len(set(names)) != len(arrays) or len(names) != len(arrays):
        raise Refused(f"has {len(arrays):,} arrays and {len(set(names)):,} names: expected one for each")
    return dict(zip(names, arrays, strict=True))


class Cursor:
    """A place in the file."""

    def __init__(self, content: memoryview) -> None:
        self.content, self.position = content, 0

    def taken(self, count: int) -> memoryview:
        """Return a view of the next bytes, no copy."""
        taken = self.content[self.position : self.position + count]
        if len(taken) != count:
            raise Refused("is cut off")
        self.position += count
        return taken

    def number(self, num_bytes: int, signed: bool = False) -> int:
        return int.from_bytes(self.taken(num_bytes), "little", signed=signed)


def _count(cursor: Cursor) -> int:
    count = cursor.number(8)
    if count > MOST_ARRAYS:
        raise Refused(f"says that it holds {count:,} arrays: expected at most {MOST_ARRAYS:,}")
    return count


def _array(cursor: Cursor) -> torch.Tensor:
    magic = cursor.number(4)
    if magic in (V2, V3) and cursor.number(4) != 0:
        raise Refused("holds a sparse array: expected dense ones")
    axes, side_bytes = (cursor.number(4), 8) if magic in (V1, V2, V3) else (magic, 4)
    if not 1 <= axes <= MOST_AXES:
        raise Refused(f"holds an array of {axes:,} axes: expected 1 to {MOST_AXES}")
    shape = tuple(cursor.number(side_bytes) for _ in range(axes))
    cursor.taken(8)  # which device it lay on
    kind = cursor.number(4)
    if kind not in DTYPES:
        raise Refused(f"holds an array of the type {kind}: expected one of {', '.join(map(str, DTYPES))}")
    strides = tuple(prod(shape[axis + 1 :]) for axis in range(axes))
    count = prod(shape)
    if not 1 <= count <= len(cursor.content):
        raise Refused(f"holds an array of shape {shape}, more than the file has bytes for" if count else "holds an empty array")
    described = Strided(Storage("", DTYPES[kind], count), 0, shape, strides)
    return tensor_of(bytearray(cursor.taken(described.num_bytes)), described)


def _name(cursor: Cursor) -> str:
    length = cursor.number(8)
    if length > LONGEST_NAME:
        raise Refused(f"has a name of {length:,} bytes: expected at most {LONGEST_NAME:,}")
    try:
        name = bytes(cursor.taken(length)).decode()
    except UnicodeDecodeError:
        raise Refused("has a name that is no UTF-8") from None
    return name.removeprefix(KINDS[0]).removeprefix(KINDS[1])
