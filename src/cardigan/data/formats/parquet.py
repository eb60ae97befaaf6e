"""Images in parquet files, one per row. Row groups are read on access, and the last one is cached.

Knows the columns of images and classes, and where Hugging Face stores the class names.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

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
from cardigan.data.reader import Reader, UnreadableImage, fingerprint, printable, stat_signature
from cardigan.errors import CardiganError, error_reason

TRAIN_FILE = re.compile(r"train([-_.]|$)")


@dataclass(frozen=True)
class RowGroup:
    """Rows of a file that are read together."""

    file: Path
    index: int
    start: int
    """Index of its first row over all files."""
    start_in_file: int
    """Index of its first row in its file."""
    size: int


def train_files(files: Sequence[Path]) -> Sequence[Path]:
    """Return the files of the train split if file or folder names hold it (train-00000-of-00002.parquet), else all."""
    return [file for file in files if TRAIN_FILE.match(file.name) or file.parent.name == "train"] or files


def parquet_reader(files: Sequence[Path], column: str) -> Reader:
    """Return the images of parquet files with the same columns, in the order of the files.

    Images are encoded, as bytes or as Hugging Face's {bytes, path}, or nested lists of pixels, in a column of
    `IMAGE_COLUMNS` or in the only such column. Classes are integers or strings in `column`, or else in a column that
    Hugging Face declares as classes or that is called label, labels, class, ...
    """
    name = printable(str(files[0]))
    try:
        schema = _schema(files[0])
        image_column = _find_image_column(name, schema)
        requested, position = split_position(column, schema.names)
        label_column, notes = _find_label_column(name, requested, schema, image_column)
        groups = [group for group in _row_groups(files, image_column) if group.size]
        labels, label_notes = (
            (None, ())
            if label_column is None
            else optional_labels(label_column, column, lambda: _labels(files, label_column, schema, position))
        )
    except (OSError, ValueError, _arrow_errors()) as error:
        raise CardiganError(
            f"{name!r} cannot be read ({error_reason(error)}): expected complete parquet files with the same columns."
        ) from None
    if not groups:
        raise CardiganError(f"{name!r} has no rows: expected one for each image.")
    starts = [group.start for group in groups]
    rows = _row_group_reader(groups, image_column)

    def entry_name(index: int) -> str:
        group = groups[bisect_right(starts, index) - 1]
        return (
            str(index)
            if len(files) == 1
            else f"{printable(group.file.name)} row {group.start_in_file + index - group.start}"
        )

    def cell(index: int) -> object:
        number = bisect_right(starts, index) - 1
        return rows(number)[index - starts[number]].as_py()

    num_rows = groups[-1].start + groups[-1].size
    is_encoded = _is_binary(schema.field(image_column).type)
    source_fingerprint = fingerprint(part for file in files for part in (file.name, stat_signature(file)))
    return Reader(
        name,
        num_rows,
        entry_name,
        (lambda index: image_bytes(cell(index))) if is_encoded else nested_list_reader(name, cell, num_rows),
        source_fingerprint,
        labels,
        notes=(*notes, *label_notes),
    )


def nested_list_reader(name: str, cell: Callable[[int], object], count: int) -> Callable[[int], np.ndarray]:
    """Return the function that reads the pixels of cells that are nested lists, as of Hugging Face's Array3D."""
    from cardigan.data.formats.arrays import NUM_PROBED, channels_last_axes, pixel_converter  # imports torch

    def pixels(index: int) -> np.ndarray:
        values = np.asarray(cell(index))
        if values.ndim not in (2, 3) or values.dtype.kind not in "biuf":
            raise UnreadableImage("is missing: its cell holds no pixels")
        return values.transpose(channels_last_axes(name, (1, *values.shape)))

    sample = []
    for index in range(min(NUM_PROBED, count)):
        with suppress(UnreadableImage):
            sample.append(pixels(index))
    to_pixels = pixel_converter(name, sample or [np.zeros((1, 1), np.uint8)])
    return lambda index: to_pixels(pixels(index))


def image_bytes(cell: object) -> bytes:
    """Return the image file in a cell: bytes or Hugging Face's {bytes, path}."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(content, bytes):
        raise UnreadableImage("is missing: its cell holds no bytes")
    return content


def read_columns(file: Path) -> tuple[list[str], Iterator[Sequence[object]]]:
    """Return the column names and the rows of a parquet file."""
    try:
        table = _import_parquet().read_table(file, use_threads=False)
    except _arrow_errors() as error:
        raise CardiganError(
            f"{printable(str(file))!r} cannot be read ({error_reason(error)}): expected a complete parquet file."
        ) from None
    return table.column_names, zip(*(column.to_pylist() for column in table.columns), strict=True)


def _import_parquet() -> Any:
    try:
        from pyarrow import parquet
    except ImportError:
        raise CardiganError("Parquet files need pyarrow: install it with pip install 'cardigan[parquet]'.") from None
    return parquet


def _arrow_errors() -> type[Exception]:
    _import_parquet()
    from pyarrow import ArrowException

    return ArrowException


def _schema(file: Path) -> Any:
    return _import_parquet().read_schema(file)


def _row_groups(files: Sequence[Path], column: str) -> Iterator[RowGroup]:
    first = 0
    for file in files:
        metadata = _import_parquet().read_metadata(file)
        if column not in metadata.schema.to_arrow_schema().names:
            raise ValueError(f"{printable(file.name)} has no column {column!r}")
        row = 0
        for number in range(metadata.num_row_groups):
            size = metadata.row_group(number).num_rows
            yield RowGroup(file, number, first, row, size)
            first, row = first + size, row + size


def _row_group_reader(groups: Sequence[RowGroup], column: str) -> Callable[[int], Any]:
    """Return the function that reads a row group. It reopens the file, so forked processes share no open file."""

    @lru_cache(maxsize=1)
    def rows(number: int) -> Any:
        group = groups[number]
        try:
            with _import_parquet().ParquetFile(group.file) as parquet:
                return parquet.read_row_group(group.index, columns=[column], use_threads=False).column(0)
        except (OSError, ValueError, MemoryError, _arrow_errors()) as error:
            raise UnreadableImage(f"cannot be read ({error_reason(error)})") from None

    return rows


def _find_image_column(name: str, schema: Any) -> str:
    candidates = [field.name for field in schema if _is_binary(field.type)] or [
        field.name for field in schema if _is_nested_list(field.type)
    ]
    column = find_column(name, "", candidates, IMAGE_COLUMNS) or (candidates[0] if len(candidates) == 1 else None)
    if column is None:
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise CardiganError(
            f"{name!r} has the columns {columns}: expected encoded images, as bytes, in a column called "
            f"{IMAGE_COLUMNS[0]}."
        )
    return column


def _is_nested_list(arrow_type: Any) -> bool:
    """Return whether a column holds lists of lists of numbers."""
    from pyarrow import types

    inner = getattr(arrow_type, "storage_type", arrow_type)
    depth = 0
    while types.is_list(inner) or types.is_large_list(inner) or types.is_fixed_size_list(inner):
        inner, depth = inner.value_type, depth + 1
    return depth in (2, 3) and (types.is_integer(inner) or types.is_floating(inner))


def _is_binary(arrow_type: Any) -> bool:
    from pyarrow import types

    if types.is_struct(arrow_type):
        return any(field.name == "bytes" and _is_binary(field.type) for field in arrow_type)
    fits = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    return any(fit(arrow_type) for fit in fits)


def _find_label_column(name: str, requested: str, schema: Any, image_column: str) -> tuple[str | None, tuple[str, ...]]:
    from pyarrow import types

    fits = (types.is_integer, types.is_string, types.is_large_string, types.is_boolean, types.is_dictionary)
    columns = [
        field.name
        for field in schema
        if field.name != image_column
        and (
            requested
            or field.name.lower() in LABEL_COLUMNS
            or any(fit(field.type) for fit in (*fits, types.is_string_view))
        )
    ]
    declared = [column for column in columns if _class_names(schema, column)]
    return choose_label_column(name, requested, columns, declared)


def _labels(files: Sequence[Path], column: str, schema: Any, position: int | None) -> list[Label]:
    values = [
        value
        for file in files
        for value in _import_parquet().read_table(file, columns=[column], use_threads=False).column(0).to_pylist()
    ]
    names, source = _class_names(schema, column), f"Column {column!r}"
    return [
        class_name_of(names, value) if names else cell_label(source, cell_at(source, value, position))
        for value in values
    ]


def _class_names(schema: Any, column: str) -> list[str]:
    """Return the class names of a column from Hugging Face's metadata; empty without metadata."""
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = metadata.get("info", {}).get("features", {}).get(column, {})
    return feature.get("names", []) if isinstance(feature, dict) else []
