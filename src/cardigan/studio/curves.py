"""A run's metrics, downsampled for charts: buckets of equal width with mean, minimum and maximum, as JSON values."""

import csv
import io
import math
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from cardigan.files.csv_text import csv_text
from cardigan.run.journal import Event
from cardigan.studio.journal_tail import MAX_EXACT_INTEGER, finite_number
from cardigan.studio.run_series import RunSeries

MAX_POINTS = 5_000
CSV_ROWS_PER_CHUNK = 2_000
"""Rows of CSV per chunk of the response."""
SEPARATE_KINDS = {"progress", "samples", "checkpoint", "fault"}
"""Event kinds that `events` leaves out: the response has them under other names, or not at all."""


def curves(
    run_series: RunSeries,
    max_points: int,
    first: float | None = None,
    last: float | None = None,
    wanted: Collection[str] | None = None,
) -> dict[str, Any]:
    """Return at most `max_points` points of every metric for first <= images_seen <= last. Default: the whole run.

    `wanted` names the metrics to return. Default: all.
    """
    images_seen, elapsed_seconds = np.array(run_series.images_seen), np.array(run_series.elapsed_seconds)
    in_range = np.ones(len(images_seen), dtype=bool)
    if first is not None:
        in_range &= images_seen >= first
    if last is not None:
        in_range &= images_seen <= last
    names = [name for name in run_series.series if wanted is None or name in wanted]
    values = (
        np.stack([np.array(run_series.series[name])[in_range] for name in names])
        if names
        else np.zeros((0, int(in_range.sum())))
    )
    images_seen, elapsed_seconds = images_seen[in_range], elapsed_seconds[in_range]
    is_downsampled = len(images_seen) > max_points
    if is_downsampled:
        starts = _bucket_starts(images_seen, max_points)
        counts = np.diff([*starts, len(images_seen)])
        images_seen, elapsed_seconds = (
            np.add.reduceat(images_seen, starts) / counts,
            np.add.reduceat(elapsed_seconds, starts) / counts,
        )
        mean, low, high = _bucket_statistics(values, starts)
    else:
        mean, low, high = values, values, values
    series = {
        name: {"mean": _json_numbers(mean[row]), "low": _json_numbers(low[row]), "high": _json_numbers(high[row])}
        for row, name in enumerate(names)
    }
    return {
        "num_readings": int(in_range.sum()),
        "is_downsampled": is_downsampled,
        "images_seen": _json_numbers(images_seen),
        "elapsed_seconds": _json_numbers(elapsed_seconds),
        "series": series,
        "offset": run_series.offset,
        "num_malformed": run_series.num_malformed,
        **_events(run_series),
    }


def _bucket_starts(images_seen: np.ndarray, num_buckets: int) -> np.ndarray:
    """Return the start index of each nonempty bucket. Buckets have equal width in images_seen."""
    span = float(images_seen[-1] - images_seen[0])
    bucket_indices = (
        np.minimum((images_seen - images_seen[0]) * (num_buckets / span), num_buckets - 1).astype(np.int64)
        if span > 0
        else np.zeros(len(images_seen), dtype=np.int64)
    )
    # images_seen may decrease without a rollback event in a damaged journal
    bucket_indices = np.maximum.accumulate(bucket_indices)
    return np.flatnonzero(np.diff(bucket_indices, prepend=-1))


def _bucket_statistics(values: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, minimum and maximum of each row per bucket. They ignore NaN, and are NaN if all values are NaN."""
    missing = np.isnan(values)
    counts = np.add.reduceat(~missing, starts, axis=1, dtype=np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.add.reduceat(np.where(missing, 0.0, values), starts, axis=1) / counts
    low = np.minimum.reduceat(np.where(missing, math.inf, values), starts, axis=1)
    high = np.maximum.reduceat(np.where(missing, -math.inf, values), starts, axis=1)
    is_empty = counts == 0
    return _round_significant(mean), np.where(is_empty, np.nan, low), np.where(is_empty, np.nan, high)


def _round_significant(values: np.ndarray) -> np.ndarray:
    """Round to 6 significant digits, which halves the size of the response."""
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = 10.0 ** (5 - np.floor(np.log10(np.abs(values))))
        rounded = np.round(values * scale) / scale
    return np.where(np.isfinite(rounded), rounded, values)


def _json_numbers(values: np.ndarray) -> list[int | float | None]:
    """Return the values for JSON: integers without a decimal point, None for NaN."""
    return [
        None if math.isnan(value) else int(value) if value.is_integer() and abs(value) < MAX_EXACT_INTEGER else value
        for value in values.tolist()
    ]


def _events(run_series: RunSeries) -> dict[str, Any]:
    checkpoints = [event for event in run_series.other_events if event.kind == "checkpoint"]
    scores = [
        (event, finite_number(event.values.get("score")), finite_number(event.values.get("score_standard_error")))
        for event in checkpoints
    ]
    faults = [event for event in run_series.other_events if event.kind == "fault"]
    fault_fields = ("name", "fatal", "message", "advice", "evidence")
    return {
        "scores": [
            {**_event_time(event), "score": score, "error": error}
            for event, score, error in scores
            if score is not None
        ],
        "faults": [
            {**_event_time(event), **{name: event.values.get(name) for name in fault_fields}} for event in faults
        ],
        "events": [
            {**_event_time(event), "kind": event.kind, "values": event.values}
            for event in run_series.other_events
            if event.kind not in SEPARATE_KINDS
        ],
    }


def _event_time(event: Event) -> dict[str, Any]:
    return {"images_seen": event.images_seen, "elapsed_seconds": event.elapsed_seconds}


def csv_chunks(run_series: RunSeries) -> Iterator[bytes]:
    """Yield the progress events as CSV: images_seen, elapsed_seconds and every metric. Missing values are empty."""
    images_seen, elapsed_seconds = run_series.images_seen[:], run_series.elapsed_seconds[:]
    columns = {name: column[:] for name, column in run_series.series.items()}
    return _csv_rows(
        images_seen.tolist(), elapsed_seconds.tolist(), {name: column.tolist() for name, column in columns.items()}
    )


def _csv_rows(
    images_seen: list[float], elapsed_seconds: list[float], columns: dict[str, list[float]]
) -> Iterator[bytes]:
    yield _csv_bytes([["images_seen", "elapsed_seconds", *map(csv_text, columns)]])
    for start in range(0, len(images_seen), CSV_ROWS_PER_CHUNK):
        yield _csv_bytes(
            [
                [
                    int(images_seen[row]),
                    elapsed_seconds[row],
                    *("" if math.isnan(column[row]) else column[row] for column in columns.values()),
                ]
                for row in range(start, min(start + CSV_ROWS_PER_CHUNK, len(images_seen)))
            ]
        )


def _csv_bytes(rows: list[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode(errors="replace")
