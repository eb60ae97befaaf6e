"""The class of each image, from the source, its folders or a label file, and the encoding of classes as integers.

Knows only the names of images.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from cardigan.data.formats.file_names import normalize_path
from cardigan.data.formats.label_files import LABEL_SUFFIXES, LabelRows, dataset_json_rows, read_label_rows
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
        return Path(name).is_file()
    except OSError:  # a name that is too long, or no permission for a parent folder
        return False


def with_labels(reader: Reader, labels: str) -> Reader:
    """Return the reader with the classes that `labels` selects. "" and a column keep the reader's own."""
    if labels == FOLDER_LABELS:
        return replace(reader, labels=folder_labels(reader.name, entry_names(reader)))
    file, column = parse_labels_setting(labels)
    return (
        reader
        if file is None
        else replace(
            reader, labels=match_rows(printable(str(file)), read_label_rows(file, column), entry_names(reader))
        )
    )


def with_dataset_json(reader: Reader, content: bytes) -> Reader:
    """Return the reader with the classes of a dataset.json in StyleGAN's layout: {"labels": [[name, class], ...]}."""
    rows = dataset_json_rows(f"{DATASET_JSON} of {reader.name}", content)
    return replace(reader, labels=None if rows is None else match_rows(DATASET_JSON, rows, entry_names(reader)))


def entry_names(reader: Reader) -> list[str]:
    return [reader.entry_name(index) for index in range(len(reader))]


def folder_labels(name: str, image_names: Sequence[str]) -> list[Label]:
    """Return the subfolder of each image: the topmost folder of its path below those that all images share.

    None for images outside any subfolder. Raises CardiganError if that is all of them.
    """
    parts = [image_name.split("/")[:-1] for image_name in image_names]
    while parts and len({path[0] if path else "" for path in parts}) == 1 and all(len(path) > 1 for path in parts):
        parts = [path[1:] for path in parts]
    labels: list[Label] = [path[0] if path else None for path in parts]
    if all(label is None for label in labels):
        raise CardiganError(
            f"The labels are folder names, and no image of {name!r} is in a subfolder: put each class into a subfolder."
        )
    return labels


def match_rows(file: str, rows: LabelRows, image_names: Sequence[str]) -> list[Label]:
    """Return the class of each image from the row with its name; None for images without a row.

    The name is the path, or the file name if it is unique, with or without its suffix. The order of rows does not
    matter. Raises CardiganError if a name fits several images, an image has two classes, or no row has an image.
    """
    full_names = {image_name: index for index, image_name in enumerate(image_names)}
    partial_names = _partial_names(image_names)
    labels: list[Label] = [None] * len(image_names)
    matched: set[int] = set()
    for name, label in rows:
        path = normalize_path(name)
        index = full_names.get(path, partial_names.get(path))
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
    for index, image_name in enumerate(image_names):
        for name in _name_variants(image_name):
            partial_names[name] = index if partial_names.setdefault(name, index) == index else AMBIGUOUS
    return partial_names


def _name_variants(image_name: str) -> set[str]:
    file = image_name.rpartition("/")[2]
    return {image_name.rpartition(".")[0] if "." in file else image_name, file, file.rpartition(".")[0] or file}


def _examples(name: str, image_names: Iterable[str]) -> str:
    return " and ".join([repr(image_name) for image_name in image_names if name in _name_variants(image_name)][:2])


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
