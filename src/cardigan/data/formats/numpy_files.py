"""Array files of NumPy: .npy and .npz. Nothing is unpickled.

Finds the arrays of images and labels; `arrays.py` interprets their axes and values.
"""

import zlib
from collections.abc import Sequence
from lzma import LZMAError
from pathlib import Path
from tokenize import TokenError
from zipfile import BadZipFile

import numpy as np

from cardigan.data.formats.arrays import IMAGE_KEYS, LABEL_KEYS, array_file_reader
from cardigan.data.reader import Reader
from cardigan.errors import CardiganError, error_reason, unknown

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
    return array_file_reader(path, pixels, labels)


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


def _load_error(path: Path, error: BaseException) -> CardiganError:
    return CardiganError(
        f"{str(path)!r} cannot be read ({error_reason(error)}): "
        "expected a complete array of numbers, without Python objects."
    )
