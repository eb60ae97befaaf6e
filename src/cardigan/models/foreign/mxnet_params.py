"""Read MXNet's `.params` files: a list of arrays and a list of names, from `mx.nd.save` and `Module.save_params`.

Supports all four array formats of MXNet (before 1.0, V1, V2, and V3 for NumPy arrays), but not sparse arrays.
"""

from math import prod

import torch

from cardigan.models.foreign.tensor_storage import Storage, StridedTensor, UnsupportedFile, materialize_tensor

MXNET_MAGIC = (0x112).to_bytes(8, "little")
V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
DTYPES = {
    0: torch.float32,
    1: torch.float64,
    2: torch.float16,
    3: torch.uint8,
    4: torch.int32,
    5: torch.int8,
    6: torch.int64,
    12: torch.bfloat16,
}
MAX_ARRAYS = 10_000
MAX_DIMS = 8
MAX_NAME_BYTES = 1_000
NAME_PREFIXES = ("arg:", "aux:")
"""Name prefixes of Module: parameters and auxiliary states."""


def read_mxnet_tensors(content: bytes) -> dict[str, torch.Tensor]:
    """Return the arrays of a file by name, without arg: and aux:.

    Raises UnsupportedFile for damaged files, sparse arrays or unknown types.
    """
    reader = ByteReader(memoryview(content))
    reader.read(16)  # magic and eight reserved bytes
    arrays = [_read_array(reader) for _ in range(_read_count(reader))]
    names = [_read_name(reader) for _ in range(_read_count(reader))]
    if len(set(names)) != len(arrays) or len(names) != len(arrays):
        raise UnsupportedFile(f"has {len(arrays):,} arrays and {len(set(names)):,} names: expected one for each")
    return dict(zip(names, arrays, strict=True))


class ByteReader:
    """A position in the file."""

    def __init__(self, content: memoryview) -> None:
        self.content, self.position = content, 0

    def read(self, count: int) -> memoryview:
        """Return a view of the next bytes without a copy."""
        view = self.content[self.position : self.position + count]
        if len(view) != count:
            raise UnsupportedFile("is truncated")
        self.position += count
        return view

    def read_integer(self, num_bytes: int, signed: bool = False) -> int:
        return int.from_bytes(self.read(num_bytes), "little", signed=signed)


def _read_count(reader: ByteReader) -> int:
    count = reader.read_integer(8)
    if count > MAX_ARRAYS:
        raise UnsupportedFile(f"claims to hold {count:,} arrays: expected at most {MAX_ARRAYS:,}")
    return count


def _read_array(reader: ByteReader) -> torch.Tensor:
    magic = reader.read_integer(4)
    if magic in (V2, V3) and reader.read_integer(4) != 0:
        raise UnsupportedFile("holds a sparse array: expected dense ones")
    num_dims, dim_bytes = (reader.read_integer(4), 8) if magic in (V1, V2, V3) else (magic, 4)
    if not 1 <= num_dims <= MAX_DIMS:
        raise UnsupportedFile(f"holds an array of {num_dims:,} axes: expected 1 to {MAX_DIMS}")
    shape = tuple(reader.read_integer(dim_bytes) for _ in range(num_dims))
    reader.read(8)  # device
    dtype_code = reader.read_integer(4)
    if dtype_code not in DTYPES:
        raise UnsupportedFile(f"holds an array of type {dtype_code}: expected one of {', '.join(map(str, DTYPES))}")
    strides = tuple(prod(shape[dim + 1 :]) for dim in range(num_dims))
    count = prod(shape)
    if not 1 <= count <= len(reader.content):
        raise UnsupportedFile(
            f"holds an array of shape {shape}, which is larger than the file" if count else "holds an empty array"
        )
    strided_tensor = StridedTensor(Storage("", DTYPES[dtype_code], count), 0, shape, strides)
    return materialize_tensor(bytearray(reader.read(strided_tensor.num_bytes)), strided_tensor)


def _read_name(reader: ByteReader) -> str:
    length = reader.read_integer(8)
    if length > MAX_NAME_BYTES:
        raise UnsupportedFile(f"has a name of {length:,} bytes: expected at most {MAX_NAME_BYTES:,}")
    try:
        name = bytes(reader.read(length)).decode()
    except UnicodeDecodeError:
        raise UnsupportedFile("has a name that is not UTF-8") from None
    return name.removeprefix(NAME_PREFIXES[0]).removeprefix(NAME_PREFIXES[1])
