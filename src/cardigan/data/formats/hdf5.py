"""Images in HDF5 files, as arrays. The one file that needs h5py."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
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
from cardigan.data.formats.per_process import PerProcess
from cardigan.data.reader import Reader, UnreadableImage, fingerprint, printable, stat_signature
from cardigan.errors import CardiganError, error_reason


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
