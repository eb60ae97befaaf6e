"""Images in HDF5 files, as arrays. The one file that needs h5py."""

from pathlib import Path
from typing import Any

import numpy as np

from cardigan.data.formats.arrays import IMAGE_KEYS, LABEL_KEYS, array_labels, items_reader
from cardigan.data.formats.columns import find_column
from cardigan.data.formats.per_process import PerProcess
from cardigan.data.reader import Reader, UnreadableImage, fingerprint, stat_signature
from cardigan.errors import CardiganError, error_reason


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
