"""Arrays in files: NumPy's .npy and .npz, and the IDX files of MNIST. Objects in them are never unpickled.

Knows where an array and its labels lie; `arrays.py` knows which of its axes and numbers are pixels.
"""

import gzip
import zlib
from collections.abc import Sequence
from lzma import LZMAError
from pathlib import Path
from tokenize import TokenError
from zipfile import BadZipFile

import numpy as np

from cardigan.data.formats.arrays import labels_of_array, reader_of_items
from cardigan.data.formats.entries import reason, stamp
from cardigan.data.reader import Reader, fingerprint
from cardigan.errors import CardiganError, unknown

PIXELS = ("images", "x", "arr_0", "x_train", "data")
LABELS = ("y", "labels", "label", "y_train", "arr_1", "targets")
IDX_BYTES = b"\0\0\x08"
"""How a file of bytes begins; the number of its axes follows."""
HELD_IN_MEMORY = 2 * 2**30
"""Of a compressed file, this many bytes at most."""
PIECE = 2**20
DAMAGE = (
    *(OSError, EOFError, ValueError, KeyError, SyntaxError, OverflowError, MemoryError, BadZipFile, zlib.error),
    *(TokenError, NotImplementedError, RuntimeError, TypeError, LZMAError),
)
"""What NumPy and the standard library raise for files that are cut off or damaged, whose headers NumPy reads as Python's."""


def npy_reader(path: Path) -> Reader:
    """Return the pictures of a .npy file, which stays on the disk until they are asked for."""
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(pixels, np.ndarray):
            pixels.close()
            raise ValueError("it holds several arrays: call it .npz")
    except DAMAGE as error:
        raise _damaged(path, error) from None
    return _array_reader(path, pixels, None)


def npz_reader(path: Path, column: str) -> Reader:
    """Return the pictures of a .npz file, read as a whole: the first array of a shape of pictures among those called images, x, arr_0, x_train,
    data, or any. Classes are in the array `column`, or in one called y, labels, label, y_train, arr_1 or targets.
    """
    try:
        with path.open("rb") as file:  # NumPy leaves it open where it finds damage
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise ValueError("it holds one array: call it .npy")
            with loaded as arrays:
                pixels = _chosen(arrays, PIXELS)
                key = column or next((key for key in LABELS if key in arrays.files), "")
                if key and key not in arrays.files:
                    raise unknown(f"array of {path!s}", key, arrays.files)
                labels = arrays[key] if key else None
                if isinstance(labels, bytes):
                    raise ValueError(f"its member {key} is no array")
    except DAMAGE as error:
        raise _damaged(path, error) from None
    return _array_reader(path, pixels, labels)


def _chosen(arrays: "np.lib.npyio.NpzFile", preferred: Sequence[str]) -> np.ndarray:
    shapes = {}
    for key in sorted(arrays.files, key=lambda key: preferred.index(key) if key in preferred else len(preferred)):
        array = arrays[key]
        if not isinstance(array, np.ndarray):
            continue  # a member that is no .npy comes as its bytes
        if array.ndim in (3, 4):
            return array
        shapes[key] = array.shape
    raise CardiganError(f"No array of the file is of pictures, their shapes are {shapes}: expected one of 3 or 4 axes.")


def _array_reader(path: Path, pixels: np.ndarray, labels: np.ndarray | None) -> Reader:
    classes = None if labels is None else labels_of_array(str(path), labels, len(pixels))
    return reader_of_items(str(path), pixels.shape, lambda index: pixels[index], fingerprint([stamp(path)]), classes)


def _damaged(path: Path, error: BaseException) -> CardiganError:
    return CardiganError(f"{str(path)!r} cannot be read ({reason(error)}): expected an array of numbers, whole and without Python objects.")


def idx_reader(path: Path) -> Reader:
    """Return the pictures of an IDX file, with the labels of the file beside it that is called so (train-labels-idx1-ubyte), if there is one."""
    pixels = _idx(path)
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    choices = (beside, beside.with_name(beside.name + ".gz"), beside.with_name(beside.name.removesuffix(".gz")))
    labels = next((_idx(choice) for choice in choices if choice != path and "idx1" in choice.name and choice.is_file()), None)
    return _array_reader(path, pixels, labels)


def _unpacked(path: Path) -> bytes:
    """Return what a gzip file holds; a file of a few bytes can unpack to any size, so no more is unpacked than may be held."""
    parts, held = [], 0
    with gzip.open(path) as file:
        while part := file.read(PIECE):
            parts.append(part)
            held += len(part)
            if held > HELD_IN_MEMORY:
                raise ValueError(f"it unpacks to more than {HELD_IN_MEMORY:,} bytes: gunzip it first")
    return b"".join(parts)


def _idx(path: Path) -> np.ndarray:
    try:
        packed = path.name.lower().endswith(".gz")
        content = _unpacked(path) if packed else np.memmap(path, np.uint8, mode="r")
    except DAMAGE as error:
        raise _damaged(path, error) from None
    values = np.frombuffer(content, np.uint8) if isinstance(content, bytes) else content
    axes = int(values[3]) if len(values) > 3 else 0
    begin = 4 + 4 * axes
    shape = np.frombuffer(values[4:begin].tobytes(), ">u4") if len(values) >= begin else ()
    if values[:3].tobytes() != IDX_BYTES or axes == 0 or begin + int(np.prod(shape, dtype=np.int64)) != len(values):
        raise CardiganError(f"{str(path)!r} is no whole IDX file of bytes: expected MNIST's format, which begins with 00 00 08. Get it anew.")
    return values[begin:].reshape([int(side) for side in shape])
