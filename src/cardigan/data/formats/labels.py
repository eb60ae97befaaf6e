"""Which class each picture has, as the source, its folders or a file beside it tell, and classes as numbers.

Knows pictures by their titles only, not where they are or what they show.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from cardigan.data.formats.label_files import SUFFIXES, Rows, dataset_json_rows, rows_of
from cardigan.data.reader import Reader, shown
from cardigan.errors import CardiganError

FOLDERS = "folders"
DATASET_JSON = "dataset.json"
AMBIGUOUS = -1
WHOLE = re.compile(r"[+-]?\d{1,18}(\.0+)?", re.ASCII)

Label: TypeAlias = str | int | None


def parted(labels: str) -> tuple[Path | None, str]:
    """Return the file and the column that FILE or FILE:COLUMN names, no file for what is a column alone, neither for "" and "folders".

    Raises CardiganError for the name of a file that is not there.
    """
    if labels in {"", FOLDERS}:
        return None, ""
    if _is_file(labels):
        return Path(labels), ""
    file, colon, column = labels.rpartition(":")
    if colon and _is_file(file):
        return Path(file), column
    if labels.lower().endswith(SUFFIXES) or file.lower().endswith(SUFFIXES):
        raise CardiganError(f"There is no file of labels {shown(labels)!r}: expected the path of a file, or FILE:COLUMN.")
    return None, labels


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except OSError:  # a name that is too long, a folder that must not be entered
        return False


def labelled(reader: Reader, labels: str) -> Reader:
    """Return the reader with the classes that `labels` asks for; its own where that is "" or the name of a column, which it knows itself."""
    if labels == FOLDERS:
        return replace(reader, labels=folder_labels(reader.name, titles_of(reader)))
    file, column = parted(labels)
    return reader if file is None else replace(reader, labels=row_labels(shown(str(file)), rows_of(file, column), titles_of(reader)))


def with_dataset_json(reader: Reader, content: bytes) -> Reader:
    """Return the reader with the classes of a dataset.json of StyleGAN's layout: {"labels": [[name, class], ...]}."""
    rows = dataset_json_rows(f"{DATASET_JSON} of {reader.name}", content)
    return replace(reader, labels=None if rows is None else row_labels(DATASET_JSON, rows, titles_of(reader)))


def titles_of(reader: Reader) -> list[str]:
    return [reader.title(index) for index in range(len(reader))]


def folder_labels(name: str, titles: Sequence[str]) -> list[Label]:
    """Return the sub-folder each picture lies in: the topmost of its path after those that all pictures share.

    None for pictures that lie in none; raises CardiganError where that is all of them.
    """
    parts = [title.split("/")[:-1] for title in titles]
    while parts and len({path[0] if path else "" for path in parts}) == 1 and all(len(path) > 1 for path in parts):
        parts = [path[1:] for path in parts]
    labels: list[Label] = [path[0] if path else None for path in parts]
    if all(label is None for label in labels):
        raise CardiganError(f"Labels are to be the names of folders, and no picture of {name!r} lies in one: put each class into a sub-folder.")
    return labels


def row_labels(file: str, rows: Rows, titles: Sequence[str]) -> list[Label]:
    """Return the class of each picture: that of the row with its path or, if only one picture has it, its file name, suffix or none.

    The order of rows does not matter. None for pictures without a row. Raises CardiganError for a name of several pictures, for a picture of
    two classes, and if no row has a picture.
    """
    exact = {title: index for index, title in enumerate(titles)}
    loose = _loose_names(titles)
    labels: list[Label] = [None] * len(titles)
    found: set[int] = set()
    for name, label in rows:
        path = _tidy(name)
        index = exact.get(path, loose.get(path))
        if index is None:
            continue
        if index == AMBIGUOUS:
            raise CardiganError(f"{file}: {name!r} is the name of several pictures, such as {_examples(path, titles)}: give paths within the source.")
        if index in found and labels[index] != label:
            raise CardiganError(f"{file}: {titles[index]!r} is of two classes, {labels[index]!r} and {label!r}: leave one row for each picture.")
        found.add(index)
        labels[index] = label
    if not found:
        raise CardiganError(f"{file}: no row is of a picture of the source. {_unlike(rows, titles)}: give paths within the source, or file names.")
    return labels


def _tidy(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./")


def _loose_names(titles: Iterable[str]) -> Mapping[str, int]:
    """Return pictures by path without suffix, file name, and file name without suffix; AMBIGUOUS for a name of several."""
    names: dict[str, int] = {}
    for index, title in enumerate(titles):
        for name in _shorter(title):
            names[name] = index if names.setdefault(name, index) == index else AMBIGUOUS
    return names


def _shorter(title: str) -> set[str]:
    file = title.rpartition("/")[2]
    return {title.rpartition(".")[0] if "." in file else title, file, file.rpartition(".")[0] or file}


def _examples(name: str, titles: Iterable[str]) -> str:
    return " and ".join([repr(title) for title in titles if name in _shorter(title)][:2])


def _unlike(rows: Rows, titles: Sequence[str]) -> str:
    row = f"The first row names {rows[0][0]!r}" if rows else "It has no rows"
    return f"{row}, the first picture is {titles[0]!r}" if titles else row


def classes_of(labels: Sequence[Label]) -> tuple[list[int | None], list[str]]:
    """Return each picture's class as a number 0 to K - 1, None where it has none, and the names of the K classes.

    Classes are sorted by value if all are whole numbers, in digits or not ("3", 3 and "3.0" are one), else as text.
    """
    given = {label for label in labels if label is not None}
    whole = all(isinstance(label, int) or WHOLE.fullmatch(label) for label in given)
    value = {label: int(str(label).partition(".")[0]) if whole else str(label) for label in given}
    number = {known: place for place, known in enumerate(sorted(set(value.values())))}
    return [None if label is None else number[value[label]] for label in labels], [str(known) for known in number]
