"""The class of each image, from the source, its folders or a label file, and the encoding of classes as integers.

Knows only the names of images.
"""

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from cardigan.data.formats.columns import encoding_notes, optional_labels
from cardigan.data.formats.file_names import compose, normalize_path
from cardigan.data.formats.label_files import (
    LABEL_SUFFIXES,
    LabelRows,
    dataset_json_rows,
    parse_dataset_json,
    read_label_rows,
)
from cardigan.data.formats.splits import TEST_FOLDER, TRAIN_FOLDER
from cardigan.data.reader import Reader, printable
from cardigan.errors import CardiganError

FOLDER_LABELS = "folders"
DATASET_JSON = "dataset.json"
AMBIGUOUS = -1
INTEGER = re.compile(r"[+-]?\d{1,18}(\.0+)?", re.ASCII)

Label: TypeAlias = str | int | None


def parse_labels_setting(labels: str) -> tuple[Path | None, str]:
    """Return the file and the column of FILE or FILE:COLUMN; no file for a column alone; neither for "" and "folders".

    Raises CardiganError if the label file does not exist.
    """
    if labels in {"", FOLDER_LABELS}:
        return None, ""
    if _is_file(labels):
        return Path(labels), ""
    file, separator, column = labels.rpartition(":")
    if separator and _is_file(file):
        return Path(file), column
    if labels.lower().endswith(LABEL_SUFFIXES) or file.lower().endswith(LABEL_SUFFIXES):
        raise CardiganError(
            f"There is no label file {printable(labels)!r}: expected the path of a file, or FILE:COLUMN."
        )
    return None, labels


def _is_file(name: str) -> bool:
    try:
        return Path(name).exists() and not Path(name).is_dir()
    except OSError:  # a name that is too long, or no permission for a parent folder
        return False


def with_labels(reader: Reader, labels: str) -> Reader:
    """Return the reader with the classes that `labels` selects. "" and a column keep the reader's own."""
    if labels == FOLDER_LABELS:
        labels_of_folders = folder_labels(reader.name, entry_names(reader))
        notes = tuple(note for note in reader.notes if not note.startswith("classes:"))
        return replace(reader, labels=labels_of_folders, notes=notes)
    file, column = parse_labels_setting(labels)
    if file is None:
        return reader
    rows, notes = read_label_rows(file, column)
    return replace(
        reader,
        labels=match_rows(printable(str(file)), rows, entry_names(reader)),
        notes=(*(note for note in reader.notes if not note.startswith("classes:")), *notes),
    )


def with_dataset_json(reader: Reader, contents: Mapping[str, bytes]) -> Reader:
    """Return the reader with the classes of files in StyleGAN's layout: {"labels": [[name, class], ...]}.

    `contents` are the files by the folder in which each lies. Classes that are unusable are left out, with a note.
    Raises CardiganError for a damaged file.
    """
    tables = {
        folder: parse_dataset_json(f"{DATASET_JSON} of {reader.name}", content) for folder, content in contents.items()
    }
    if all(table is None for table in tables.values()):
        return reader
    names = entry_names(reader)

    def read_labels() -> list[Label]:
        known = set(names)
        rows = [
            (joined if (joined := f"{folder}/{normalize_path(name)}") in known else name, label)
            for folder, table in tables.items()
            if table is not None
            for name, label in dataset_json_rows(DATASET_JSON, table)
        ]
        return match_rows(DATASET_JSON, rows, names)

    labels, notes = optional_labels(DATASET_JSON, "", read_labels)
    guessed = (note for content in contents.values() for note in encoding_notes(DATASET_JSON, content))
    return replace(reader, labels=labels, notes=(*reader.notes, *notes, *guessed))


def entry_names(reader: Reader) -> list[str]:
    return [reader.entry_name(index) for index in range(len(reader))]


def folder_labels(name: str, image_names: Sequence[str]) -> list[Label]:
    """Return the subfolder of each image: the topmost folder of its path below those that all images share.

    Folders such as `train` and `test` count as shared.
    None for images outside any subfolder. Raises CardiganError if that is all of them.
    """
    parts = [image_name.split("/")[:-1] for image_name in image_names]
    while parts and all(len(path) > 1 for path in parts) and _is_common({path[0] for path in parts}):
        parts = [path[1:] for path in parts]
    labels: list[Label] = [compose(path[0]) if path else None for path in parts]
    if all(label is None for label in labels):
        raise CardiganError(
            f"The labels are folder names, and no image of {name!r} is in a subfolder: put each class into a subfolder."
        )
    return labels


def _is_common(folders: Set[str]) -> bool:
    """Return whether these folders are one, or the parts of a data set such as `train` and `test`."""
    return len(folders) == 1 or (
        any(TRAIN_FOLDER.fullmatch(folder) for folder in folders)
        and all(TRAIN_FOLDER.fullmatch(folder) or TEST_FOLDER.fullmatch(folder) for folder in folders)
    )


def match_rows(file: str, rows: LabelRows, image_names: Sequence[str]) -> list[Label]:
    """Return the class of each image from the row with its name; None for images without a row.

    The name is the path, or the file name if it is unique, with or without its suffix, composed or decomposed. The
    order of rows does not matter. Raises CardiganError if a name fits several images, an image has two classes, or no
    row has an image.
    """
    full_names = {image_name: index for index, image_name in enumerate(image_names)}
    partial_names = _partial_names(image_names)
    labels: list[Label] = [None] * len(image_names)
    matched: set[int] = set()
    for name, label in rows:
        path = normalize_path(name)
        index = full_names.get(path, partial_names.get(compose(path)))
        if index is None:
            continue
        if index == AMBIGUOUS:
            raise CardiganError(
                f"{file}: {name!r} is the name of several images, such as {_examples(path, image_names)}: "
                "give paths within the source."
            )
        if index in matched and labels[index] != label:
            raise CardiganError(
                f"{file}: {image_names[index]!r} has two classes, {labels[index]!r} and {label!r}: "
                "keep one row for each image."
            )
        matched.add(index)
        labels[index] = label
    if not matched:
        raise CardiganError(
            f"{file}: no row names an image of the source. {_mismatch_example(rows, image_names)}: "
            "give paths within the source, or file names."
        )
    return labels


def _partial_names(image_names: Iterable[str]) -> Mapping[str, int]:
    """Return indices by path without suffix, file name, and file name without suffix; AMBIGUOUS for duplicates."""
    partial_names: dict[str, int] = {}
    for index, image_name in enumerate(map(compose, image_names)):
        for name in _name_variants(image_name) | ({image_name} if not image_name.isascii() else set()):
            partial_names[name] = index if partial_names.setdefault(name, index) == index else AMBIGUOUS
    return partial_names


def _name_variants(image_name: str) -> set[str]:
    file = image_name.rpartition("/")[2]
    return {image_name.rpartition(".")[0] if "." in file else image_name, file, file.rpartition(".")[0] or file}


def _examples(name: str, image_names: Iterable[str]) -> str:
    return " and ".join(
        [repr(image_name) for image_name in image_names if name in _name_variants(compose(image_name))][:2]
    )


def _mismatch_example(rows: LabelRows, image_names: Sequence[str]) -> str:
    row = f"The first row names {rows[0][0]!r}" if rows else "It has no rows"
    return f"{row}, the first image is {image_names[0]!r}" if image_names else row


def encode_labels(labels: Sequence[Label]) -> tuple[list[int | None], list[str]]:
    """Return each image's class index 0 to K - 1, None without a class, and the names of the K classes.

    Classes are sorted by value if all are integers ("3", 3 and "3.0" are the same class), else as text.
    """
    known_labels = {label for label in labels if label is not None}
    all_integers = all(isinstance(label, int) or INTEGER.fullmatch(label) for label in known_labels)
    values = {label: int(str(label).partition(".")[0]) if all_integers else str(label) for label in known_labels}
    index_of = {class_value: index for index, class_value in enumerate(sorted(set(values.values())))}
    return [None if label is None else index_of[values[label]] for label in labels], [str(known) for known in index_of]
