"""Pictures in HDF5 files, as arrays, and in LMDB databases, as encoded files.

The one file that needs h5py and lmdb.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from cardigan.data.formats.array_files import LABELS, PIXELS
from cardigan.data.formats.arrays import labels_of_array, reader_of_items
from cardigan.data.formats.columns import chosen_column
from cardigan.data.formats.entries import NO_PICTURE, PerProcess, reason, stamp
from cardigan.data.reader import Reader, Unreadable, fingerprint, shown
from cardigan.errors import CardiganError

ENCODED = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"P5", b"P6")
"""How files of pictures begin; AVIF has its name in bytes 4 to 12 instead."""


def hdf5_reader(path: Path, column: str) -> Reader:
    """Return the pictures of an HDF5 file: of its dataset called images, x, arr_0, x_train or data, else of the only one of 3 or 4 axes.

    Classes are in the dataset `column`, or in one called y, labels, label, y_train, arr_1 or targets.
    """
    h5py = _h5py()
    try:
        with h5py.File(path, "r") as file:
            found = _arrays(h5py, file)
            pixels = _pixel_array(str(path), {key: array.shape for key, array in found.items()})
            label = chosen_column(str(path), column, [key for key in found if key != pixels], LABELS)
            labels = None if label is None else _hdf5_labels(str(path), found[label], len(found[pixels]))
            shape = found[pixels].shape
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise CardiganError(f"{str(path)!r} cannot be read ({reason(error)}): expected a whole HDF5 file.") from None
    opened = PerProcess(lambda: h5py.File(path, "r")[pixels])

    def item(index: int) -> np.ndarray:
        try:
            return opened()[index]
        except (OSError, RuntimeError, KeyError) as error:
            raise Unreadable(f"cannot be read ({reason(error)})") from None

    return reader_of_items(str(path), shape, item, fingerprint([stamp(path)]), labels)


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise CardiganError("HDF5 files need h5py: install it with pip install 'cardigan[hdf5]'.") from None
    return h5py


def _arrays(h5py: Any, file: Any) -> dict[str, Any]:
    names: list[str] = []
    file.visit(names.append)
    return {name: file[name] for name in names if isinstance(file[name], h5py.Dataset)}


def _pixel_array(name: str, shapes: dict[str, tuple[int, ...]]) -> str:
    fitting = [key for key, shape in shapes.items() if len(shape) in (3, 4)]
    key = chosen_column(name, "", fitting, PIXELS) or (fitting[0] if len(fitting) == 1 else None)
    if key is None:
        raise CardiganError(f"{name!r} holds the arrays {shapes}: expected pictures in one called {PIXELS[0]}, of 3 or 4 axes.")
    return key


def _hdf5_labels(name: str, array: Any, count: int) -> list[str | int | None]:
    values = array[:]
    return labels_of_array(name, values.astype("S") if values.dtype.kind == "O" else values, count)


def lmdb_reader(path: Path) -> Reader:
    """Return the pictures of an LMDB database, a folder with data.mdb or a file: its values that begin as files of pictures do, by key."""
    pictures, marks, passed_over = [], [], Counter[str]()
    with _transaction(path) as transaction:
        for key, value in transaction.cursor():
            if _is_encoded(bytes(value[:16])):
                pictures.append(bytes(key))
                marks.append(len(value))
            else:
                passed_over[NO_PICTURE] += 1
    if not pictures:
        raise CardiganError(
            f"No value of {str(path)!r} is a picture ({passed_over[NO_PICTURE]:,} are not): expected files of pictures, such as JPEG."
        )
    database = path / "data.mdb" if path.is_dir() else path
    alone = PerProcess(Lock)

    def read(index: int) -> bytes:
        try:
            with alone(), _transaction(path) as transaction:
                return bytes(transaction.get(pictures[index], b""))
        except CardiganError as error:
            raise Unreadable(f"cannot be read ({error})") from None

    mark = fingerprint([stamp(database), *(part for pair in zip(pictures, marks, strict=True) for part in pair)])
    return Reader(str(path), len(pictures), lambda index: shown(pictures[index]), read, mark, passed_over=dict(passed_over))


@contextmanager
def _transaction(path: Path) -> Iterator[Any]:
    """Yield the database, opened for this once: LMDB lets a process open it only one time, and forbids a forked one what its parent has opened."""
    try:
        import lmdb
    except ImportError:
        raise CardiganError("LMDB databases need lmdb: install it with pip install 'cardigan[lmdb]'.") from None
    try:
        with (
            lmdb.open(str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False) as database,
            database.begin(buffers=True) as open_,
        ):
            yield open_
    except (lmdb.Error, OSError) as error:
        raise CardiganError(f"{str(path)!r} cannot be read ({reason(error)}): expected a whole LMDB database.") from None


def _is_encoded(begin: bytes) -> bool:
    return begin.startswith(ENCODED) or begin[4:12] in {b"ftypavif", b"ftypavis", b"ftypmif1"}
