"""Pictures of Hugging Face's datasets, from the hub (`hf:NAME` or `hf:NAME:SPLIT`) or from a folder that was saved.

The one file that needs the `datasets` package; pictures stay encoded until they are decoded as all others are.
"""

import re
from pathlib import Path
from typing import Any

from cardigan.data.formats.columns import PICTURE_COLUMNS, chosen_column, label_of, named_class
from cardigan.data.formats.entries import reason, stamp
from cardigan.data.formats.tables import picture_bytes
from cardigan.data.reader import Reader, Unreadable, fingerprint
from cardigan.errors import CardiganError, unknown

PREFIX = "hf:"
SAVED = ("dataset_dict.json", "state.json", "dataset_info.json")
"""Files that mark a folder as a dataset of Hugging Face's."""
SPLIT = "train"
FITTING = re.compile(r"u?int\d+|string|large_string|bool")
"""Types of classes."""


def huggingface_reader(source: str, column: str) -> Reader:
    """Return the pictures of `hf:NAME`, its training part, or of `hf:NAME:SPLIT`; NAME may be a folder."""
    name, _, split = source.removeprefix(PREFIX).partition(":")
    saved = Path(name).expanduser()
    if any((saved / mark).is_file() for mark in SAVED):
        return saved_reader(saved, column, split)
    datasets = _datasets()
    try:
        dataset = datasets.load_dataset(name, split=split or SPLIT)
    except (OSError, ValueError, RuntimeError, KeyError, datasets.exceptions.DatasetsError) as error:
        raise CardiganError(
            f"{source!r} cannot be loaded ({reason(error)}): expected hf:NAME or hf:NAME:SPLIT of a dataset on the hub, and a connection to it."
        ) from None
    return _reader(source, dataset, column, split)


def saved_reader(folder: Path, column: str, split: str = "") -> Reader:
    """Return the pictures of a dataset in a folder, as save_to_disk or Hugging Face's cache leaves it."""
    datasets = _datasets()
    try:
        dataset = _prepared(folder, split or SPLIT) if not _is_saved(folder) else datasets.load_from_disk(str(folder))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, datasets.exceptions.DatasetsError) as error:
        raise CardiganError(f"{str(folder)!r} cannot be loaded ({reason(error)}): expected a dataset saved by save_to_disk, whole.") from None
    if isinstance(dataset, datasets.Dataset) and split and _is_saved(folder) and str(dataset.split) != split:
        raise CardiganError(f"{str(folder)!r} is one part of a dataset, {dataset.split or 'unnamed'}, and {split!r} was asked for: leave it out.")
    if isinstance(dataset, datasets.DatasetDict):
        wanted = split or (SPLIT if SPLIT in dataset or len(dataset) != 1 else next(iter(dataset)))
        if wanted not in dataset:
            raise unknown(f"split of {str(folder)!r}", wanted, dataset)
        dataset = dataset[wanted]
    return _reader(str(folder), dataset, column, split)


def _is_saved(folder: Path) -> bool:
    return any((folder / mark).is_file() for mark in SAVED[:2])


def _prepared(folder: Path, split: str) -> Any:
    """Return the part of a dataset in Hugging Face's cache, where the names of files tell parts (NAME-train-00000-of-00002.arrow)."""
    files = sorted(file for file in folder.glob("*.arrow") if f"-{split}" in file.stem)
    if not files:
        raise CardiganError(f"{str(folder)!r} has no file *-{split}*.arrow: expected a dataset of Hugging Face's; give hf:FOLDER:SPLIT.")
    datasets = _datasets()
    return datasets.concatenate_datasets([datasets.Dataset.from_file(str(file)) for file in files])


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise CardiganError("Datasets of Hugging Face's need the package datasets: install it with pip install 'cardigan[huggingface]'.") from None
    return datasets


def _reader(name: str, dataset: Any, column: str, split: str) -> Reader:
    dataset = dataset.with_format(None)
    pictures = _picture_column(name, dataset.features)
    label = _label_column(name, column, dataset, pictures)
    if isinstance(dataset.features[pictures], _datasets().Image):
        dataset = dataset.cast_column(pictures, _datasets().Image(decode=False))
    encoded = dataset.select_columns([pictures])
    labels = None if label is None else _labels(dataset, label)
    return Reader(name, len(dataset), str, lambda index: _content(encoded[index][pictures]), _mark(dataset, split), labels)


def _mark(dataset: Any, split: str) -> str:
    files = sorted({Path(file["filename"]) for file in dataset.cache_files})
    return fingerprint([split, len(dataset), *(part for file in files for part in (file.name, stamp(file)))])


def _picture_column(name: str, features: Any) -> str:
    datasets = _datasets()
    candidates = [
        column for column, kind in features.items() if isinstance(kind, datasets.Image) or getattr(kind, "dtype", "") in {"binary", "large_binary"}
    ]
    column = chosen_column(name, "", candidates, PICTURE_COLUMNS) or (candidates[0] if len(candidates) == 1 else None)
    if column is None:
        raise CardiganError(f"{name!r} has the columns {', '.join(features)}: expected pictures in one of them, called {PICTURE_COLUMNS[0]}.")
    return column


def _label_column(name: str, asked: str, dataset: Any, pictures: str) -> str | None:
    kinds = {column: str(getattr(kind, "dtype", "")) for column, kind in dataset.features.items() if column != pictures}
    return chosen_column(name, asked, [column for column, kind in kinds.items() if asked or FITTING.fullmatch(kind)])


def _labels(dataset: Any, column: str) -> list[str | int | None]:
    kind = dataset.features[column]
    names = kind.names if isinstance(kind, _datasets().ClassLabel) else []
    values = dataset.select_columns([column])[:][column]
    return [named_class(names, value) if names else label_of(f"Column {column!r}", value) for value in values]


def _content(cell: object) -> bytes:
    """Return a picture's bytes; where the dataset holds its path alone, as one made of a folder does, those of that file."""
    path = cell.get("path") if isinstance(cell, dict) and cell.get("bytes") is None else None
    if path is None:
        return picture_bytes(cell)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Unreadable(f"cannot be read ({reason(error)})") from None
