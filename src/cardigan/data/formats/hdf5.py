"""Images in HDF5 files, as arrays, and in LMDB databases, as encoded files.

The one file that needs h5py and lmdb.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from cardigan.data.formats.array_names import (
    IMAGE_NAMES,
    array_notes,
    choose_images,
    choose_labels,
    is_named_images,
    is_named_labels,
    is_test,
)
from cardigan.data.formats.arrays import (
    CHANNEL_COUNTS,
    NUM_PROBED,
    array_labels,
    channels_last_axes,
    column_of,
    items_reader,
    pixel_converter,
)
from cardigan.data.formats.columns import Label, optional_labels
from cardigan.data.formats.file_names import NOT_AN_IMAGE, PerProcess, error_reason, stat_signature
from cardigan.data.reader import Reader, UnreadableImage, fingerprint, printable
from cardigan.errors import CardiganError

IMAGE_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"P5", b"P6")
"""First bytes of image files. AVIF has its name in bytes 4 to 12 instead."""
RESOLUTION_KEY = re.compile(rb"(\d{1,5})-(\d+)")
"""Keys of databases that hold every image in several sizes: 256-00000."""


def hdf5_reader(path: Path, column: str) -> Reader:
    """Return the images of an HDF5 file.

    They are in a dataset of `IMAGE_NAMES`, or else in the only one with 3 or 4 axes, or else one in each dataset.
    Datasets of a test part come last. Classes are in the dataset `column`, or else in one of `LABEL_NAMES`.
    """
    h5py = _import_h5py()
    name = str(path)
    try:
        with h5py.File(path, "r") as file:
            datasets = _datasets(h5py, file)
            shapes = {key: dataset.shape for key, dataset in datasets.items()}
            images = _find_images(name, shapes)
            count = len(images) if len(images) > 1 else shapes[images[0]][0]
            labels, notes = _find_labels(name, datasets, column, images, count)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise CardiganError(
            f"{str(path)!r} cannot be read ({error_reason(error)}): expected a complete HDF5 file."
        ) from None
    file = PerProcess(lambda: h5py.File(path, "r"))

    def read(key: str, index: int | tuple[()]) -> np.ndarray:
        try:
            return file()[key][index]
        except (OSError, RuntimeError, KeyError) as error:
            raise UnreadableImage(f"cannot be read ({error_reason(error)})") from None

    mark = fingerprint([stat_signature(path)])
    if len(images) > 1:
        return _dataset_per_image_reader(name, images, lambda key: read(key, ()), mark, labels, notes)
    reader = items_reader(name, shapes[images[0]], lambda index: read(images[0], index), mark, labels)
    return replace(reader, notes=(*reader.notes, *notes))


def _dataset_per_image_reader(
    name: str,
    keys: Sequence[str],
    read: Callable[[str], np.ndarray],
    mark: str,
    labels: Sequence[Label] | None,
    notes: tuple[str, ...],
) -> Reader:
    """Return the images of a file with one dataset for each. Their sizes may differ."""
    to_pixels = pixel_converter(name, [read(key) for key in keys[:NUM_PROBED]])

    def read_pixels(index: int) -> np.ndarray:
        pixels = read(keys[index])
        return to_pixels(pixels.transpose(channels_last_axes(name, (1, *pixels.shape))))

    return Reader(name, len(keys), lambda index: printable(keys[index]), read_pixels, mark, labels, notes=notes)


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


def _find_images(name: str, shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """Return the dataset of the images, or the datasets of one image each."""
    key = choose_images(shapes)
    fitting = [
        other for other, shape in shapes.items() if len(shape) in (3, 4) and is_test(other) == is_test(key or "")
    ]
    single = [other for other, shape in shapes.items() if _is_one_image(shape) and not is_named_labels(other)]
    training = [other for other in single if not is_test(other)] or single
    if key is not None and (is_named_images(key) or (len(fitting) == 1 and fitting != training)):
        return [key]
    if len(training) > 1:
        return training
    raise CardiganError(
        f"{name!r} holds the arrays {shapes}: expected images in one called {IMAGE_NAMES[0]}, with 3 or 4 axes."
    )


def _is_one_image(shape: tuple[int, ...]) -> bool:
    return 0 not in shape and (
        (len(shape) == 2 and min(shape) > 1)
        or (len(shape) == 3 and (shape[2] in CHANNEL_COUNTS or shape[0] in CHANNEL_COUNTS))
    )


def _find_labels(
    name: str, datasets: dict[str, Any], requested: str, images: Sequence[str], count: int
) -> tuple[list[Label] | None, tuple[str, ...]]:
    """Return the classes, and notes on arrays that are not read."""
    others = {key: dataset.shape for key, dataset in datasets.items() if key not in images}
    shapes = {**others, images[0]: (count, 1, 1)}
    key, column = choose_labels(name, requested, images[0], shapes)
    labels, notes = (
        optional_labels(key, requested, lambda: _hdf5_labels(name, datasets, key, column, count)) if key else (None, ())
    )
    return labels, (*array_notes(images[0], key, requested, shapes), *notes)


def _hdf5_labels(name: str, datasets: dict[str, Any], key: str, column: str, count: int) -> list[Label]:
    values = datasets[key][()]
    if not isinstance(values, np.ndarray):
        raise CardiganError(f"{name!r} has one value in {key!r}: expected a class for each image.")
    if column:
        values = column_of(name, values, column, lambda size: _column_names(datasets, size))
    if values.dtype.kind == "O" and all(isinstance(value, bytes | str) for value in values.flat):
        return array_labels(name, values.tolist(), count)
    return array_labels(name, values, count)


def _column_names(datasets: dict[str, Any], count: int) -> list[str]:
    """Return the texts of the file's only dataset of `count` texts."""
    found = [dataset for dataset in datasets.values() if dataset.shape == (count,) and dataset.dtype.kind in "OSU"]
    texts = found[0][()].tolist() if len(found) == 1 else []
    return [text.decode(errors="replace") if isinstance(text, bytes) else str(text) for text in texts]


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
    keys, sizes, notes = _largest_resolution(keys, sizes)
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
        str(path),
        len(keys),
        lambda index: printable(keys[index]),
        read,
        source_fingerprint,
        skipped=dict(skipped),
        notes=notes,
    )


def _largest_resolution(keys: list[bytes], sizes: list[int]) -> tuple[list[bytes], list[int], tuple[str, ...]]:
    """Return the keys of the largest resolution if every key is SIZE-INDEX and each index has every size."""
    matches = [RESOLUTION_KEY.fullmatch(key) for key in keys]
    parts = [(int(match[1]), match[2]) for match in matches if match is not None]
    resolutions = {resolution for resolution, _ in parts}
    if len(parts) < len(keys) or len(resolutions) < 2:
        return keys, sizes, ()
    largest = max(resolutions)
    indices = {resolution: {index for size, index in parts if size == resolution} for resolution in resolutions}
    if any(indices[resolution] != indices[largest] for resolution in resolutions):
        return keys, sizes, ()
    kept = [position for position, (resolution, _) in enumerate(parts) if resolution == largest]
    smaller = ", ".join(str(resolution) for resolution in sorted(resolutions - {largest}))
    note = f"images: the database holds every image in several sizes; {largest} is read, {smaller} not"
    return [keys[position] for position in kept], [sizes[position] for position in kept], (note,)


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
