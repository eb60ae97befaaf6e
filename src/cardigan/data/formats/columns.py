"""What the columns of tables are usually called, and what a cell says of a picture's class.

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
    """Return the column that is asked for, else the first that has a usual name, if any; raises CardiganError if there is none as asked."""
    if requested and requested not in columns:
        raise unknown(f"column of {source}", requested, columns)
    lower = {column.lower(): column for column in reversed(columns)}
    return requested or next((lower[name] for name in default_names if name in lower), None)


def cell_label(source: str, value: object) -> str | int | None:
    """Return a cell as a class: text, a whole number, or None where it is empty; raises CardiganError for anything else."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        return value.strip() or None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    raise CardiganError(f"{source} tells {value!r} as a class: expected text or a whole number.")


def class_name_of(names: Sequence[str], value: object) -> str | None:
    """Return the name of a class of Hugging Face's by its number; None for -1, which stands for no class there."""
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None
