"""Default column names of tables, and the conversion of cells to classes.

Knows no file format.
"""

import math
from collections.abc import Iterable, Sequence

from cardigan.errors import CardiganError, unknown

IMAGE_COLUMNS = ("image", "img", "picture", "png", "jpg")
FILE_NAME_COLUMNS = ("file", "file_name", "filename", "image", "name", "path", "id")
LABEL_COLUMNS = ("label", "labels", "class")


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


def cell_label(source: str, value: object) -> str | int | None:
    """Return a cell as a class: a string, an integer, or None for an empty cell; raises CardiganError for others."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        return value.strip() or None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    raise CardiganError(f"{source} has the class {value!r}: expected a string or an integer.")


def class_name_of(names: Sequence[str], value: object) -> str | None:
    """Return the class name for a Hugging Face class index; None for -1, which means no class."""
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None
