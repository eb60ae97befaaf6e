"""Array files: NumPy's .npy and .npz, and the IDX files of MNIST. Nothing is unpickled.

Finds the arrays of images and labels; `arrays.py` interprets their axes and values.
"""

import gzip
import math
import os
import zlib
from dataclasses import replace
from lzma import LZMAError
from pathlib import Path
from tokenize import TokenError
from typing import NamedTuple
from zipfile import BadZipFile, ZipFile

import numpy as np

from cardigan.data.formats.array_names import array_notes, choose_images, choose_labels
from cardigan.data.formats.arrays import array_labels, column_of, items_reader
from cardigan.data.formats.columns import optional_labels
from cardigan.data.formats.file_names import error_reason, stat_signature
from cardigan.data.reader import Reader, fingerprint
from cardigan.errors import CardiganError

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


class ArrayHeader(NamedTuple):
    """What an .npz file says about one of its arrays."""

    shape: tuple[int, ...]
    dtype: np.dtype
    stored_bytes: int
    """Uncompressed size of its member."""

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def npz_reader(path: Path, column: str) -> Reader:
    """Return the images of a .npz file, loaded into memory.

    They are in an array with 3 or 4 axes; `IMAGE_NAMES` come first, and arrays of a test part last.
    Classes are in the array `column`, or else in one of `LABEL_NAMES`. NAME:NUMBER is a column of an array.
    """
    try:
        headers = _npz_headers(path)
        shapes = {key: header.shape for key, header in headers.items()}
        images = choose_images(shapes)
        if images is None:
            raise _no_images_error(path, headers)
        labels_key, labels_column = choose_labels(str(path), column, images, shapes)
        pixels = _load_array(path, images, headers[images])
        classes, notes = (
            optional_labels(
                labels_key, column, lambda: _npz_labels(path, headers, labels_key, labels_column, len(pixels))
            )
            if labels_key
            else (None, ())
        )
    except LOAD_ERRORS as error:
        raise _load_error(path, error) from None
    reader = _array_file_reader(path, pixels, None)
    notes = (*reader.notes, *array_notes(images, labels_key, column, shapes), *notes)
    return replace(reader, labels=classes, notes=notes)


def _npz_headers(path: Path) -> dict[str, ArrayHeader]:
    """Return the headers of the arrays without loading them."""
    headers = {}
    with path.open("rb") as file:
        if file.read(6) == b"\x93NUMPY":
            raise ValueError("it holds one array: call it .npy")
    with ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                continue
            with archive.open(info) as member:
                version = np.lib.format.read_magic(member)
                read_header = (
                    np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = read_header(member)
            headers[info.filename.removesuffix(".npy")] = ArrayHeader(shape, dtype, info.file_size)
    return headers


def _load_array(path: Path, key: str, header: ArrayHeader) -> np.ndarray:
    """Return an array of a .npz file. Its size is checked first, since a tiny file can claim any size."""
    if not header.dtype.hasobject and header.num_bytes > header.stored_bytes:
        raise ValueError(f"{key} claims {header.num_bytes:,} bytes and holds {header.stored_bytes:,}")
    memory = physical_memory_bytes()
    if header.stored_bytes > memory:
        raise CardiganError(
            f"{str(path)!r} unpacks to {header.stored_bytes:,} bytes, and this computer has {memory:,} of memory: "
            "store it as .npy, which is read in place."
        )
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return arrays[key]


def physical_memory_bytes() -> int:
    """Return the size of this computer's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _npz_labels(
    path: Path, headers: dict[str, ArrayHeader], key: str, column: str, count: int
) -> list[str | int | None]:
    try:
        values = _load_array(path, key, headers[key])
    except ValueError as error:  # Python objects
        raise CardiganError(f"Its array {key!r} cannot be read ({error_reason(error)}).") from None
    if column:
        values = column_of(str(path), values, column, lambda size: _column_names(path, headers, size))
    return array_labels(str(path), values, count)


def _column_names(path: Path, headers: dict[str, ArrayHeader], count: int) -> list[str]:
    """Return the texts of the file's only array of `count` texts."""
    keys = [key for key, header in headers.items() if header.shape == (count,) and header.dtype.kind == "U"]
    return _load_array(path, keys[0], headers[keys[0]]).tolist() if len(keys) == 1 else []


def _no_images_error(path: Path, headers: dict[str, ArrayHeader]) -> Exception:
    if any(header.dtype.hasobject for header in headers.values()):
        return ValueError("it holds Python objects")
    shapes = {key: header.shape for key, header in headers.items()}
    return CardiganError(
        f"No array of {str(path)!r} holds images; the shapes are {shapes}: expected one with 3 or 4 axes."
    )


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
