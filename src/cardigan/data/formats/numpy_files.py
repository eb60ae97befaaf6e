"""Array files of NumPy: .npy and .npz. Nothing is unpickled.

Finds the arrays of images and labels; `arrays.py` interprets their axes and values.
"""

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
from cardigan.data.formats.arrays import array_file_reader, array_labels, column_of
from cardigan.data.formats.columns import optional_labels
from cardigan.data.reader import Reader
from cardigan.errors import CardiganError, error_reason

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
    return array_file_reader(path, pixels, None)


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
    reader = array_file_reader(path, pixels, None)
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


def unpacked_bytes(path: Path) -> int:
    """Return the size of all arrays of a .npz file, as its directory states it. Raises OSError or BadZipFile."""
    with ZipFile(path) as archive:
        return sum(info.file_size for info in archive.infolist())


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


def _load_error(path: Path, error: BaseException) -> CardiganError:
    return CardiganError(
        f"{str(path)!r} cannot be read ({error_reason(error)}): "
        "expected a complete array of numbers, without Python objects."
    )
