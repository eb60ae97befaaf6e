"""Images in HDF5 files, as arrays, and in LMDB databases, as encoded files.

The one file that needs h5py and lmdb.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from cardigan.data.formats.arrays import array_labels, items_reader
from cardigan.data.formats.columns import find_column
from cardigan.data.formats.file_names import NOT_AN_IMAGE, PerProcess, error_reason, stat_signature
from cardigan.data.formats.numpy_files import IMAGE_KEYS, LABEL_KEYS
from cardigan.data.reader import Reader, UnreadableImage, fingerprint, printable
from cardigan.errors import CardiganError

IMAGE_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"P5", b"P6")
"""First bytes of image files. AVIF has its name in bytes 4 to 12 instead."""


def hdf5_reader(path: Path, column: str) -> Reader:
    """Return the images of an HDF5 file.

    They are in the dataset images, x, arr_0, x_train or data, or else in the only dataset with 3 or 4 axes.
    Classes are in the dataset `column`, or else in y, labels, label, y_train, arr_1 or targets.
    """
    h5py = _import_h5py()
    try:
        with h5py.File(path, "r") as file:
            datasets = _datasets(h5py, file)
            image_key = _find_image_dataset(str(path), {key: array.shape for key, array in datasets.items()})
            label_key = find_column(str(path), column, [key for key in datasets if key != image_key], LABEL_KEYS)
            labels = (
                None if label_key is None else _hdf5_labels(str(path), datasets[label_key], len(datasets[image_key]))
            )
            shape = datasets[image_key].shape
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise CardiganError(
            f"{str(path)!r} cannot be read ({error_reason(error)}): expected a complete HDF5 file."
        ) from None
    dataset = PerProcess(lambda: h5py.File(path, "r")[image_key])

    def read_item(index: int) -> np.ndarray:
        try:
            return dataset()[index]
        except (OSError, RuntimeError, KeyError) as error:
            raise UnreadableImage(f"cannot be read ({error_reason(error)})") from None

    return items_reader(str(path), shape, read_item, fingerprint([stat_signature(path)]), labels)


def _import_h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise CardiganError("HDF5 files need h5py: install it with pip install 'cardigan[hdf5]'.") from None
    return h5py


def _datasets(h5py: Any, file: Any) -> dict[str, Any]:
    names: list[str] = []
    file.visit(names.append)
    return {name: file[name] for name in names if isinstance(file[name], h5py.Dataset)}


def _find_image_dataset(name: str, shapes: dict[str, tuple[int, ...]]) -> str:
    fitting = [key for key, shape in shapes.items() if len(shape) in (3, 4)]
    key = find_column(name, "", fitting, IMAGE_KEYS) or (fitting[0] if len(fitting) == 1 else None)
    if key is None:
        raise CardiganError(
            f"{name!r} holds the arrays {shapes}: expected images in one called {IMAGE_KEYS[0]}, with 3 or 4 axes."
        )
    return key


def _hdf5_labels(name: str, array: Any, count: int) -> list[str | int | None]:
    values = array[:]
    return array_labels(name, values.astype("S") if values.dtype.kind == "O" else values, count)


def lmdb_reader(path: Path) -> Reader:
    """Return the images of an LMDB database (a folder with data.mdb, or a file): its encoded images, by key."""
    keys, sizes, skipped = [], [], Counter[str]()
    with _transaction(path) as transaction:
        for key, value in transaction.cursor():
            if _is_image_file(bytes(value[:16])):
                keys.append(bytes(key))
                sizes.append(len(value))
            else:
                skipped[NOT_AN_IMAGE] += 1
    if not keys:
        raise CardiganError(
            f"No value of {str(path)!r} is an image ({skipped[NOT_AN_IMAGE]:,} are not): "
            "expected encoded images, such as JPEG."
        )
    database = path / "data.mdb" if path.is_dir() else path
    lock = PerProcess(Lock)

    def read(index: int) -> bytes:
        try:
            with lock(), _transaction(path) as transaction:
                return bytes(transaction.get(keys[index], b""))
        except CardiganError as error:
            raise UnreadableImage(f"cannot be read ({error})") from None

    source_fingerprint = fingerprint(
        [stat_signature(database), *(part for pair in zip(keys, sizes, strict=True) for part in pair)]
    )
    return Reader(
        str(path), len(keys), lambda index: printable(keys[index]), read, source_fingerprint, skipped=dict(skipped)
    )


@contextmanager
def _transaction(path: Path) -> Iterator[Any]:
    """Yield a transaction on the database, opened for this read only.

    LMDB lets a process open a database only once, and a forked process must not use its parent's.
    """
    try:
        import lmdb
    except ImportError:
        raise CardiganError("LMDB databases need lmdb: install it with pip install 'cardigan[lmdb]'.") from None
    try:
        with (
            lmdb.open(str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False) as database,
            database.begin(buffers=True) as transaction,
        ):
            yield transaction
    except (lmdb.Error, OSError) as error:
        raise CardiganError(
            f"{str(path)!r} cannot be read ({error_reason(error)}): expected a complete LMDB database."
        ) from None


def _is_image_file(head: bytes) -> bool:
    return head.startswith(IMAGE_MAGIC) or head[4:12] in {b"ftypavif", b"ftypavis", b"ftypmif1"}
