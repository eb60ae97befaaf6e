"""Array files: NumPy's .npy and .npz, and the IDX files of MNIST. Nothing is unpickled.

Finds the arrays of images and labels; `arrays.py` interprets their axes and values.
"""

import gzip
import zlib
from collections.abc import Sequence
from lzma import LZMAError
from pathlib import Path
from tokenize import TokenError
from zipfile import BadZipFile

import numpy as np

from cardigan.data.formats.arrays import array_labels, items_reader
from cardigan.data.formats.file_names import error_reason, stat_signature
from cardigan.data.reader import Reader, fingerprint
from cardigan.errors import CardiganError, unknown

IMAGE_KEYS = ("images", "x", "arr_0", "x_train", "data")
LABEL_KEYS = ("y", "labels", "label", "y_train", "arr_1", "targets")
IDX_MAGIC = b"\0\0\x08"
"""First bytes of an IDX file of uint8 values. The number of axes follows."""
MAX_BYTES_IN_MEMORY = 2 * 2**30
"""Maximum uncompressed size of a compressed file."""
READ_BYTES = 2**20
LOAD_ERRORS = (
    *(OSError, EOFError, ValueError, KeyError, SyntaxError, OverflowError, MemoryError, BadZipFile, zlib.error),
    *(TokenError, NotImplementedError, RuntimeError, TypeError, LZMAError),
)
"""Errors that NumPy and the standard library raise for truncated or damaged files. NumPy parses headers as Python."""


def npy_reader(path: Path) -> Reader:
    """Return the images of a .npy file, memory-mapped."""
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(pixels, np.ndarray):
            pixels.close()
            raise ValueError("it holds several arrays: call it .npz")
    except LOAD_ERRORS as error:
        raise _load_error(path, error) from None
    return _array_file_reader(path, pixels, None)


def npz_reader(path: Path, column: str) -> Reader:
    """Return the images of a .npz file, loaded into memory.

    They are in the first array with 3 or 4 axes; images, x, arr_0, x_train and data come first.
    Classes are in the array `column`, or else in y, labels, label, y_train, arr_1 or targets.
    """
    try:
        with path.open("rb") as file:  # NumPy does not close a damaged file
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise ValueError("it holds one array: call it .npy")
            with loaded as arrays:
                pixels = _find_image_array(arrays, IMAGE_KEYS)
                key = column or next((key for key in LABEL_KEYS if key in arrays.files), "")
                if key and key not in arrays.files:
                    raise unknown(f"array of {path!s}", key, arrays.files)
                labels = arrays[key] if key else None
                if isinstance(labels, bytes):
                    raise ValueError(f"its member {key} is not an array")
    except LOAD_ERRORS as error:
        raise _load_error(path, error) from None
    return _array_file_reader(path, pixels, labels)


def _find_image_array(arrays: "np.lib.npyio.NpzFile", preferred: Sequence[str]) -> np.ndarray:
    shapes = {}
    for key in sorted(arrays.files, key=lambda key: preferred.index(key) if key in preferred else len(preferred)):
        array = arrays[key]
        if not isinstance(array, np.ndarray):
            continue  # a member that is not an .npy file is returned as bytes
        if array.ndim in (3, 4):
            return array
        shapes[key] = array.shape
    raise CardiganError(f"No array of the file holds images; the shapes are {shapes}: expected one with 3 or 4 axes.")


def _array_file_reader(path: Path, pixels: np.ndarray, labels: np.ndarray | None) -> Reader:
    classes = None if labels is None else array_labels(str(path), labels, len(pixels))
    return items_reader(
        str(path), pixels.shape, lambda index: pixels[index], fingerprint([stat_signature(path)]), classes
    )


def _load_error(path: Path, error: BaseException) -> CardiganError:
    return CardiganError(
        f"{str(path)!r} cannot be read ({error_reason(error)}): "
        "expected a complete array of numbers, without Python objects."
    )


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
    return _array_file_reader(path, pixels, labels)


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
        raise _load_error(path, error) from None
    values = np.frombuffer(content, np.uint8) if isinstance(content, bytes) else content
    num_axes = int(values[3]) if len(values) > 3 else 0
    data_offset = 4 + 4 * num_axes
    shape = np.frombuffer(values[4:data_offset].tobytes(), ">u4") if len(values) >= data_offset else ()
    if (
        values[:3].tobytes() != IDX_MAGIC
        or num_axes == 0
        or data_offset + int(np.prod(shape, dtype=np.int64)) != len(values)
    ):
        raise CardiganError(
            f"{str(path)!r} is not a complete IDX file of bytes: expected MNIST's format, which starts with 00 00 08. "
            "Get it again."
        )
    return values[data_offset:].reshape([int(size) for size in shape])
