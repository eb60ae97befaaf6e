"""Images of Hugging Face datasets, from the hub (`hf:NAME` or `hf:NAME:SPLIT`) or from a saved folder.

The one file that needs the `datasets` package. Images stay encoded; Cardigan decodes them.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from cardigan.data.formats.columns import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    Label,
    cell_at,
    cell_label,
    choose_label_column,
    class_name_of,
    find_column,
    optional_labels,
    split_position,
)
from cardigan.data.formats.parquet import image_bytes, nested_list_reader
from cardigan.data.reader import Reader, UnreadableImage, fingerprint, stat_signature
from cardigan.errors import CardiganError, error_reason, unknown

HF_PREFIX = "hf:"
DATASET_MARKERS = ("dataset_dict.json", "state.json", "dataset_info.json")
"""Files that identify a folder as a Hugging Face dataset."""
DEFAULT_SPLIT = "train"
BINARY_DTYPES = {"binary", "large_binary", "binary_view"}
LABEL_DTYPES = re.compile(r"u?int\d+|string|large_string|string_view|bool")
"""Column types that can hold classes."""


def huggingface_reader(source: str, column: str) -> Reader:
    """Return the images of `hf:NAME` (its train split) or `hf:NAME:SPLIT`. NAME may be a folder."""
    name, _, split = source.removeprefix(HF_PREFIX).partition(":")
    folder = Path(name).expanduser()
    if any((folder / marker).is_file() for marker in DATASET_MARKERS):
        return saved_dataset_reader(folder, column, split)
    datasets = _import_datasets()
    try:
        dataset = datasets.load_dataset(name, split=split or DEFAULT_SPLIT)
    except (OSError, ValueError, RuntimeError, KeyError, datasets.exceptions.DatasetsError) as error:
        raise CardiganError(
            f"{source!r} cannot be loaded ({error_reason(error)}): expected hf:NAME or hf:NAME:SPLIT of a dataset on "
            "the hub, and a network connection."
        ) from None
    return _dataset_reader(source, dataset, column, split)


def saved_dataset_reader(folder: Path, column: str, split: str = "") -> Reader:
    """Return the images of a dataset in a folder, written by save_to_disk or by the Hugging Face cache."""
    datasets = _import_datasets()
    try:
        dataset = (
            _load_arrow_cache(folder, split or DEFAULT_SPLIT)
            if not _is_save_to_disk(folder)
            else datasets.load_from_disk(str(folder))
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, datasets.exceptions.DatasetsError) as error:
        raise CardiganError(
            f"{str(folder)!r} cannot be loaded ({error_reason(error)}): expected a complete dataset from save_to_disk."
        ) from None
    if isinstance(dataset, datasets.Dataset) and split and _is_save_to_disk(folder) and str(dataset.split) != split:
        raise CardiganError(
            f"{str(folder)!r} is one split of a dataset, {dataset.split or 'unnamed'}, and {split!r} was requested: "
            "leave the split out."
        )
    if isinstance(dataset, datasets.DatasetDict):
        split_name = split or (DEFAULT_SPLIT if DEFAULT_SPLIT in dataset or len(dataset) != 1 else next(iter(dataset)))
        if split_name not in dataset:
            raise unknown(f"split of {str(folder)!r}", split_name, dataset)
        reader = _dataset_reader(str(folder), dataset[split_name], column, split)
        unread = ", ".join(name for name in dataset if name != split_name)
        note = f"images: the split {split_name} is read, {unread} not (hf:FOLDER:SPLIT)"
        return replace(reader, notes=(*reader.notes, note)) if unread and not split else reader
    return _dataset_reader(str(folder), dataset, column, split)


def _is_save_to_disk(folder: Path) -> bool:
    return any((folder / marker).is_file() for marker in DATASET_MARKERS[:2])


def _load_arrow_cache(folder: Path, split: str) -> Any:
    """Return a split of a dataset in the Hugging Face cache, by its file names (NAME-train-00000-of-00002.arrow)."""
    files = sorted(file for file in folder.glob("*.arrow") if f"-{split}" in file.stem)
    if not files:
        raise CardiganError(
            f"{str(folder)!r} has no file *-{split}*.arrow: expected a Hugging Face dataset; give hf:FOLDER:SPLIT."
        )
    datasets = _import_datasets()
    return datasets.concatenate_datasets([datasets.Dataset.from_file(str(file)) for file in files])


def _import_datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise CardiganError(
            "Hugging Face datasets need the package datasets: install it with pip install 'cardigan[huggingface]'."
        ) from None
    return datasets


def _dataset_reader(name: str, dataset: Any, column: str, split: str) -> Reader:
    dataset = dataset.with_format(None)
    image_column = _find_image_column(name, dataset.features)
    requested, position = split_position(column, dataset.features)
    label_column, notes = _find_label_column(name, requested, dataset, image_column)
    if isinstance(dataset.features[image_column], _import_datasets().Image):
        dataset = dataset.cast_column(image_column, _import_datasets().Image(decode=False))
    images = dataset.select_columns([image_column])
    labels, label_notes = (
        (None, ())
        if label_column is None
        else optional_labels(label_column, column, lambda: _labels(dataset, label_column, position))
    )
    return Reader(
        name,
        len(dataset),
        str,
        nested_list_reader(name, lambda index: images[index][image_column], len(dataset))
        if _is_pixel_array(dataset.features[image_column])
        else lambda index: _image_bytes(images[index][image_column]),
        _dataset_fingerprint(dataset, split),
        labels,
        notes=(*notes, *label_notes),
    )


def _dataset_fingerprint(dataset: Any, split: str) -> str:
    files = sorted({Path(file["filename"]) for file in dataset.cache_files})
    return fingerprint([split, len(dataset), *(part for file in files for part in (file.name, stat_signature(file)))])


def _find_image_column(name: str, features: Any) -> str:
    datasets = _import_datasets()
    candidates = [
        column
        for column, feature in features.items()
        if isinstance(feature, datasets.Image) or getattr(feature, "dtype", "") in BINARY_DTYPES
    ] or [column for column, feature in features.items() if _is_pixel_array(feature)]
    column = find_column(name, "", candidates, IMAGE_COLUMNS) or (candidates[0] if len(candidates) == 1 else None)
    if column is None:
        raise CardiganError(
            f"{name!r} has the columns {', '.join(features)}: expected images in a column called {IMAGE_COLUMNS[0]}."
        )
    return column


def _is_pixel_array(feature: Any) -> bool:
    datasets = _import_datasets()
    return isinstance(feature, datasets.Array2D | datasets.Array3D)


def _find_label_column(
    name: str, requested: str, dataset: Any, image_column: str
) -> tuple[str | None, tuple[str, ...]]:
    features = {column: feature for column, feature in dataset.features.items() if column != image_column}
    columns = [
        column
        for column, feature in features.items()
        if requested or column.lower() in LABEL_COLUMNS or LABEL_DTYPES.fullmatch(str(getattr(feature, "dtype", "")))
    ]
    declared = [column for column in columns if isinstance(features[column], _import_datasets().ClassLabel)]
    return choose_label_column(name, requested, columns, declared)


def _labels(dataset: Any, column: str, position: int | None) -> list[Label]:
    feature = dataset.features[column]
    names = feature.names if isinstance(feature, _import_datasets().ClassLabel) else []
    values, source = dataset.select_columns([column])[:][column], f"Column {column!r}"
    return [
        class_name_of(names, value) if names else cell_label(source, cell_at(source, value, position))
        for value in values
    ]


def _image_bytes(cell: object) -> bytes:
    """Return an image's bytes. If the dataset stores only a path, as one built from a folder does, read that file."""
    path = cell.get("path") if isinstance(cell, dict) and cell.get("bytes") is None else None
    if path is None:
        return image_bytes(cell)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UnreadableImage(f"cannot be read ({error_reason(error)})") from None
