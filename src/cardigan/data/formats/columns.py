"""Default column names of tables, the choice of the class column, and the conversion of cells to classes.

Knows no file format.
"""

import codecs
import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeAlias

from cardigan.data.formats.file_names import compose
from cardigan.data.reader import printable
from cardigan.errors import CardiganError, unknown

IMAGE_COLUMNS = ("image", "img", "picture", "png", "jpg")
FILE_NAME_COLUMNS = ("file", "file_name", "filename", "image", "name", "path", "id")
LABEL_COLUMNS = (
    *("label", "labels", "class", "classes", "target", "targets", "category"),
    *("fine_label", "coarse_label", "label_name", "class_name"),
)
CLASS_WORDS = re.compile(r"label|class|categor|target", re.IGNORECASE)
"""Parts of names of columns that probably hold classes."""
MAX_LISTED = 5
FALLBACK_ENCODING = "cp1252"
"""Encoding of texts that are not UTF-8."""

Label: TypeAlias = str | int | None


def find_column(
    source: str, requested: str, columns: Sequence[str], default_names: Iterable[str] = LABEL_COLUMNS
) -> str | None:
    """Return the requested column, or else the first with a default name, or None.

    Raises CardiganError if the requested column does not exist.
    """
    if requested and requested not in columns:
        raise unknown(f"column of {source}", requested, columns)
    lower = {column.lower(): column for column in reversed(columns)}
    return requested or next((lower[name] for name in default_names if name in lower), None)


def choose_label_column(
    source: str, requested: str, columns: Sequence[str], class_columns: Collection[str] = ()
) -> tuple[str | None, tuple[str, ...]]:
    """Return the column of the classes, or None, and a note on other columns that could hold classes.

    `class_columns` are those that the format declares as classes. Raises CardiganError for an unknown request.
    """
    column = find_column(source, requested, columns) or next(iter(class_columns), None)
    if requested:
        return column, ()
    return column, untaken_note(
        column, [other for other in columns if column is None or other in class_columns or CLASS_WORDS.search(other)]
    )


def split_position(requested: str, columns: Collection[str]) -> tuple[str, int | None]:
    """Return the column and the position of NAME:NUMBER, a class in a column of lists; no position for NAME."""
    column, separator, position = requested.rpartition(":")
    if requested not in columns and separator and column in columns and position.isascii() and position.isdecimal():
        return column, int(position)
    return requested, None


def cell_at(source: str, value: object, position: int | None) -> object:
    """Return the value at a position of a cell's list. Default: the whole cell."""
    if position is None or value is None:
        return value
    if not isinstance(value, list | tuple) or position >= len(value):
        raise CardiganError(f"{source} has no position {position} in {_shortened(value)}: give a smaller number.")
    return value[position]


def untaken_note(column: str | None, others: Sequence[str]) -> tuple[str, ...]:
    """Return a note on columns or arrays that could hold classes and are not taken; none if there are no such ones."""
    untaken = [printable(other) for other in others if other != column]
    if not untaken:
        return ()
    listed = ", ".join(untaken[:MAX_LISTED]) + (", ..." if len(untaken) > MAX_LISTED else "")
    taken = "none taken, but some" if column is None else f"those of {printable(column)}; others"
    return (f"classes: {taken} could be in {listed} (--data.labels NAME)",)


def optional_labels(
    column: str, requested: str, read_labels: Callable[[], list[Label]]
) -> tuple[list[Label] | None, tuple[str, ...]]:
    """Return the classes, or None with a note if they are unusable and were not requested."""
    try:
        return read_labels(), ()
    except CardiganError as error:
        if requested:
            raise
        return None, (f"classes: {printable(column)} is not used. {error}",)


def decode_text(source: str, content: bytes) -> tuple[str, str]:
    """Return a text and its encoding: UTF-8, UTF-16 with a byte order mark, or else cp1252.

    Raises CardiganError for other encodings.
    """
    is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if is_utf_16 else ("utf-8-sig", FALLBACK_ENCODING):
        try:
            return content.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    raise CardiganError(f"{source} is not a text in UTF-8, UTF-16 or {FALLBACK_ENCODING}: save it as UTF-8.")


def encoding_notes(source: str, content: bytes) -> tuple[str, ...]:
    """Return a note on a text that is read in the fallback encoding."""
    is_guessed = decode_text(source, content)[1] == FALLBACK_ENCODING
    return (f"classes: {source} is not UTF-8 and was read as {FALLBACK_ENCODING}",) if is_guessed else ()


def one_hot_index(value: object) -> int | None:
    """Return the position of the 1 in a list of zeros and a single 1; None for other values."""
    if not isinstance(value, list | tuple) or len(value) < 2 or not all(cell in (0, 1) for cell in value):
        return None
    return value.index(1) if sum(value) == 1 else None


def cell_label(source: str, value: object) -> Label:
    """Return a cell as a class: a string, an integer, or None for an empty cell; raises CardiganError for others.

    A one-hot list is the position of its 1.
    """
    if isinstance(value, bytes):
        value = decode_text(f"{source}: {value[:40]!r}", value)[0]
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise CardiganError(f"{source} has the class {value!a}, which is not valid Unicode: save it as UTF-8.")
        return compose(value.strip()) or None
    if (position := one_hot_index(value)) is not None:
        return position
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    raise CardiganError(f"{source} has the class {_shortened(value)}: expected a string or an integer.")


def _shortened(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def class_name_of(names: Sequence[str], value: object) -> str | None:
    """Return the class name for a Hugging Face class index; None for -1, which means no class."""
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None
