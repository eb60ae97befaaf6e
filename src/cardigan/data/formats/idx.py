"""IDX files: the format of MNIST, also compressed with gzip. Finds the label file of an image file by its name."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from cardigan.data.formats.arrays import array_file_reader
from cardigan.data.reader import Reader
from cardigan.errors import CardiganError, error_reason

IDX_MAGIC = b"\0\0\x08"
"""First bytes of an IDX file of uint8 values. The number of axes follows."""
IDX_FORMAT = "MNIST's format, which starts with 00 00 08"
MAX_BYTES_IN_MEMORY = 2 * 2**30
"""Maximum uncompressed size of a compressed file."""
READ_BYTES = 2**20
LOAD_ERRORS = (OSError, EOFError, ValueError, OverflowError, MemoryError, zlib.error)
"""Errors that NumPy and the standard library raise for truncated or damaged files."""


def idx_reader(path: Path) -> Reader:
    """Return the images of an IDX file, with the labels of its label file (train-labels-idx1-ubyte), if it exists."""
    pixels = _read_idx(path)
    labels_path = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    candidates = (
        labels_path,
        labels_path.with_name(labels_path.name + ".gz"),
        labels_path.with_name(labels_path.name.removesuffix(".gz")),
    )
    labels = next(
        (
            _read_idx(candidate)
            for candidate in candidates
            if candidate != path and "idx1" in candidate.name and candidate.is_file()
        ),
        None,
    )
    return array_file_reader(path, pixels, labels)


def _decompress_gzip(path: Path) -> bytes:
    """Return the content of a gzip file. The size is limited, since a tiny file can unpack to any size."""
    chunks, num_bytes = [], 0
    with gzip.open(path) as file:
        while chunk := file.read(READ_BYTES):
            chunks.append(chunk)
            num_bytes += len(chunk)
            if num_bytes > MAX_BYTES_IN_MEMORY:
                raise ValueError(f"it unpacks to more than {MAX_BYTES_IN_MEMORY:,} bytes: gunzip it first")
    return b"".join(chunks)


def _read_idx(path: Path) -> np.ndarray:
    try:
        is_compressed = path.name.lower().endswith(".gz")
        content = _decompress_gzip(path) if is_compressed else np.memmap(path, np.uint8, mode="r")
    except LOAD_ERRORS as error:
        raise CardiganError(f"{str(path)!r} cannot be read ({error_reason(error)}): expected {IDX_FORMAT}.") from None
    values = np.frombuffer(content, np.uint8) if isinstance(content, bytes) else content
    num_axes = int(values[3]) if len(values) > 3 else 0
    data_offset = 4 + 4 * num_axes
    shape = np.frombuffer(values[4:data_offset].tobytes(), ">u4") if len(values) >= data_offset else ()
    if (
        values[:3].tobytes() != IDX_MAGIC
        or num_axes == 0
        or data_offset + int(np.prod(shape, dtype=np.int64)) != len(values)
    ):
        raise CardiganError(f"{str(path)!r} is not a complete IDX file of bytes: expected {IDX_FORMAT}. Get it again.")
    return values[data_offset:].reshape([int(size) for size in shape])
