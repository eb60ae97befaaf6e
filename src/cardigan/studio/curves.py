"""A run's numbers, thinned to what a screen can show: buckets of equal width with their mean and their exact extremes.

Columns of numbers in, plain JSON values out.
"""

import csv
import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from cardigan.run.journal import Event
from cardigan.studio.journal import HUGE, Track, number

MAX_POINTS = 5_000
ROWS = 2_000
"""Lines of CSV that are written at a time."""
OWN_PLACE = {"progress", "samples", "checkpoint", "fault"}
"""Kinds of events that the answer has under names of their own, or not at all."""


def curves(track: Track, points: int, first: float | None = None, last: float | None = None) -> dict[str, Any]:
    """Return at most `points` points of every number between two images_seen, both included; the page's whole range if they are left out."""
    seen, seconds = np.array(track.seen), np.array(track.seconds)
    inside = np.ones(len(seen), dtype=bool)
    if first is not None:
        inside &= seen >= first
    if last is not None:
        inside &= seen <= last
    names = list(track.series)
    values = np.stack([np.array(track.series[name])[inside] for name in names]) if names else np.zeros((0, int(inside.sum())))
    seen, seconds = seen[inside], seconds[inside]
    thinned = len(seen) > points
    if thinned:
        starts = _starts(seen, points)
        counts = np.diff([*starts, len(seen)])
        seen, seconds = np.add.reduceat(seen, starts) / counts, np.add.reduceat(seconds, starts) / counts
        mean, low, high = _reduced(values, starts)
    else:
        mean, low, high = values, values, values
    series = {name: {"mean": _json(mean[row]), "low": _json(low[row]), "high": _json(high[row])} for row, name in enumerate(names)}
    return {
        "lines": int(inside.sum()),
        "thinned": thinned,
        "x": _json(seen),
        "seconds": _json(seconds),
        "series": series,
        "offset": track.offset,
        "damaged": track.damaged,
        **_events(track),
    }


def _starts(seen: np.ndarray, points: int) -> np.ndarray:
    """Return where each bucket that holds a line begins; buckets are equally wide in images_seen."""
    span = float(seen[-1] - seen[0])
    bucket = np.minimum((seen - seen[0]) * (points / span), points - 1).astype(np.int64) if span > 0 else np.zeros(len(seen), dtype=np.int64)
    bucket = np.maximum.accumulate(bucket)  # a journal that goes back without saying so is no reason to fail
    return np.flatnonzero(np.diff(bucket, prepend=-1))


def _reduced(values: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, least and greatest of each row in each bucket, what is NaN left out; NaN where nothing is left."""
    missing = np.isnan(values)
    counts = np.add.reduceat(~missing, starts, axis=1, dtype=np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.add.reduceat(np.where(missing, 0.0, values), starts, axis=1) / counts
    low = np.minimum.reduceat(np.where(missing, math.inf, values), starts, axis=1)
    high = np.maximum.reduceat(np.where(missing, -math.inf, values), starts, axis=1)
    nothing = counts == 0
    return _rounded(mean), np.where(nothing, np.nan, low), np.where(nothing, np.nan, high)


def _rounded(values: np.ndarray) -> np.ndarray:
    """Return the values to 6 significant digits: a screen shows no more, and the answer is half as long."""
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = 10.0 ** (5 - np.floor(np.log10(np.abs(values))))
        rounded = np.round(values * scale) / scale
    return np.where(np.isfinite(rounded), rounded, values)


def _json(values: np.ndarray) -> list[int | float | None]:
    """Return the numbers as JSON knows them: whole ones without a point, null for what is not there."""
    return [None if math.isnan(value) else int(value) if value.is_integer() and abs(value) < HUGE else value for value in values.tolist()]


def _events(track: Track) -> dict[str, Any]:
    judged = [event for event in track.others if event.kind == "checkpoint"]
    scores = [(event, number(event.values.get("score")), number(event.values.get("score_error"))) for event in judged]
    faults = [event for event in track.others if event.kind == "fault"]
    parts = ("name", "grave", "words", "advice", "evidence")
    return {
        "scores": [{**_moment(event), "score": score, "error": error} for event, score, error in scores if score is not None],
        "faults": [{**_moment(event), **{name: event.values.get(name) for name in parts}} for event in faults],
        "events": [{**_moment(event), "kind": event.kind, "values": event.values} for event in track.others if event.kind not in OWN_PLACE],
    }


def _moment(event: Event) -> dict[str, Any]:
    return {"images_seen": event.images_seen, "elapsed_seconds": event.elapsed_seconds}


def table(track: Track) -> Iterator[bytes]:
    """Yield every progress line as CSV: images_seen, elapsed_seconds, and each number by name, empty where a line has none."""
    seen, seconds = track.seen[:], track.seconds[:]
    columns = {name: column[:] for name, column in track.series.items()}
    return _rows(seen.tolist(), seconds.tolist(), {name: column.tolist() for name, column in columns.items()})


def _rows(seen: list[float], seconds: list[float], columns: dict[str, list[float]]) -> Iterator[bytes]:
    yield _csv([["images_seen", "elapsed_seconds", *columns]])
    for start in range(0, len(seen), ROWS):
        yield _csv(
            [
                [int(seen[row]), seconds[row], *("" if math.isnan(column[row]) else column[row] for column in columns.values())]
                for row in range(start, min(start + ROWS, len(seen)))
            ]
        )


def _csv(rows: list[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
