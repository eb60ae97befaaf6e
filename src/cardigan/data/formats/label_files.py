"""Label files with the class of each image by name: CSV, JSON, JSONL and parquet.

Does not know the images. A row is a name and a class.
"""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from cardigan.data.formats.columns import FILE_NAME_COLUMNS, cell_label, decode_text, encoding_notes, find_column
from cardigan.data.formats.file_names import skip_reason
from cardigan.data.formats.parquet import read_columns
from cardigan.data.reader import printable
from cardigan.errors import CardiganError, error_reason
from cardigan.files.special_files import reject_special_file

LABEL_SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet")

LabelRows: TypeAlias = Sequence[tuple[str, str | int | None]]


@dataclass(frozen=True)
class LabelTable:
    """Rows of a label file, with named columns."""

    file: str
    columns: Sequence[str]
    rows: Iterable[Sequence[object]]


def read_label_rows(path: Path, column: str) -> tuple[LabelRows, tuple[str, ...]]:
    """Return the names and classes in a label file, and a note if its encoding is not a Unicode one.

    Names are in a column of `FILE_NAME_COLUMNS` (`file`, `name`, `id`, ...), or else in the first. Classes are in
    `column`, or else in one of `LABEL_COLUMNS` (`label`, ...), or else in the second. Raises CardiganError for other
    files.
    """
    file = printable(str(path))
    suffix = path.suffix.lower()
    try:
        reject_special_file(path)
        if suffix == ".parquet":
            columns, rows = read_columns(path)
            return _select_columns(LabelTable(file, columns, rows), column), ()
        content = path.read_bytes()
        text, notes = decode_text(file, content)[0], encoding_notes(file, content)
        if suffix in {".json", ".jsonl"}:
            return _rows_from_json(file, json.loads(text) if suffix == ".json" else _json_lines(text), column), notes
        return _select_columns(_parse_csv(file, text), column), notes
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise CardiganError(
            f"{file} cannot be read ({error_reason(error)}): expected labels as CSV, JSON, JSONL or parquet."
        ) from None


def _json_lines(text: str) -> list[object]:
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _parse_csv(file: str, text: str) -> LabelTable:
    """Parse text with commas, semicolons or tabs. Without a header line, the columns are called 1, 2, ..."""
    first = text.partition("\n")[0]
    rows = [
        row
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=max("\t;,", key=first.count))
        if any(cell.strip() for cell in row)
    ]
    if not rows:
        return LabelTable(file, (), ())
    if skip_reason(rows[0][0].strip()) == "":
        return LabelTable(file, [str(number) for number in range(1, len(rows[0]) + 1)], rows)
    return LabelTable(file, [cell.strip() for cell in rows[0]], rows[1:])


def _select_columns(table: LabelTable, requested: str) -> LabelRows:
    name, label = _column_indices(table, requested)
    return [
        (str(row[name]).strip(), cell_label(table.file, row[label] if label < len(row) else None))
        for row in table.rows
        if name < len(row) and row[name] is not None
    ]


def _column_indices(table: LabelTable, requested: str) -> tuple[int, int]:
    columns = table.columns
    if not columns:
        raise CardiganError(f"{table.file} is empty: expected a row for each image.")
    name = find_column(table.file, "", columns, FILE_NAME_COLUMNS) or columns[0]
    others = [column for column in columns if column != name]
    label = find_column(table.file, requested, others) or next(iter(others), None)
    if label is None:
        raise CardiganError(
            f"{table.file} has one column, {name!r}: expected a second one with the class of each image."
        )
    return columns.index(name), columns.index(label)


def _rows_from_json(file: str, content: object, column: str) -> LabelRows:
    """Parse {name: class}, {"labels": [[name, class], ...]}, [[name, class], ...] or [{column: value}, ...]."""
    if isinstance(content, dict) and isinstance(content.get("labels"), list):
        content = content["labels"]
    if isinstance(content, dict):
        content = [list(item) for item in content.items()]
    if not isinstance(content, list):
        raise CardiganError(f"{file} is not a label table: expected an object {{name: class}} or a list of rows.")
    if all(isinstance(row, dict) for row in content):
        return _select_columns(_table_from_objects(file, content), column)
    if not all(isinstance(row, list) and len(row) == 2 for row in content):
        raise CardiganError(
            f"{file} mixes kinds of rows: expected [name, class] in each row, or an object in each row."
        )
    if column:
        raise CardiganError(f"{file} has no columns, and {column!r} was requested: leave it out.")
    return [(str(name), cell_label(file, label)) for name, label in content]


def _table_from_objects(file: str, rows: Sequence[Any]) -> LabelTable:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return LabelTable(file, columns, [[row.get(column) for column in columns] for row in rows])


def parse_dataset_json(file: str, content: bytes) -> dict[str, Any] | None:
    """Return a dataset.json in StyleGAN's layout; None if it has no labels."""
    try:
        table = json.loads(decode_text(file, content)[0])
    except (ValueError, RecursionError) as error:
        raise CardiganError(
            f"{file} is damaged ({error_reason(error)}): expected JSON. Repair it or remove it."
        ) from None
    return table if isinstance(table, dict) and isinstance(table.get("labels"), list) else None


def dataset_json_rows(file: str, table: dict[str, Any]) -> LabelRows:
    """Return the names and classes of a parsed dataset.json."""
    return _rows_from_json(file, table, "")
