"""What went wrong in a finished training, and where to stop it, from its journal or a table of its losses.

Reads the rows in order through the monitor that also watches live runs. Imports no torch.
"""

import csv
import gzip
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cardigan.errors import CardiganError
from cardigan.files.special_files import reject_special_file
from cardigan.health.faults import Fault
from cardigan.health.monitor import Monitor
from cardigan.health.rules import NUM_RECENT
from cardigan.health.score_trend import LOG_WORSENING, MIN_EVALUATIONS
from cardigan.health.status import NOTHING_FOUND, TOO_EARLY, health_of_run
from cardigan.run.journal import Event, read_events

Reading = tuple[int, Mapping[str, float]]
METRIC_BY_COLUMN = {"d_loss": "discriminator_loss", "g_loss": "generator_loss", "fid": "score"}


@dataclass(frozen=True)
class Diagnosis:
    """The monitor's diagnosis of one run."""

    diagnosis: str
    """The name of the fatal fault, else of the last other fault, else "nothing found" or "too early"."""
    stop_step: int | None
    """Where to stop, in steps (table) or images (journal); None without a fatal fault."""
    best_step: int | None
    """Position of the best score up to there; None without scores."""
    evidence: dict[str, Any]
    fault: Fault | None
    sentence: str = ""
    """What can be said without a fault."""
    suspicion: str = ""
    """A score that is worse than the best, but not often enough to be a fault."""


def diagnose_path(path: Path) -> dict[str, Diagnosis]:
    """Return the diagnosis of each run in a file or folder, by run name ("" for a single run without a name).

    Raises CardiganError for input that cannot be read.
    """
    if path.name.endswith((".csv", ".csv.gz")):
        runs, has_scores = read_csv(path)
        return {name: diagnose(readings, has_scores) for name, readings in runs.items()}
    journal = path / "journal.jsonl" if path.is_dir() else path
    if journal.exists():
        reject_special_file(journal)
    if not journal.is_file():
        raise CardiganError(f"{path} has no journal: give a run directory, a journal.jsonl or a .csv.")
    events = read_events(journal)
    readings, status = list(_journal_readings(events)), health_of_run(events)
    if not readings:
        raise CardiganError(
            f"{journal} has no training records: give the journal.jsonl that `cardigan train` wrote, or a .csv."
        )
    diagnosis = diagnose(readings, any("score" in values for _, values in readings))
    if diagnosis.fault is None:
        diagnosis = replace(diagnosis, diagnosis=status.state, sentence=status.sentence)
    return {"": diagnosis}


def diagnose(readings: Iterable[Reading], has_scores: bool) -> Diagnosis:
    """Return the diagnosis at the first fatal fault, or at the end. `has_scores`: the readings have scores."""
    monitor, last_fault, num_rows = Monitor(has_scores), None, 0
    for position, values in readings:
        num_rows += 1
        for fault in monitor.observe(position, values):
            last_fault = fault
            if fault.fatal:
                return _fault_diagnosis(monitor, fault, position)
    if last_fault is not None:
        return _fault_diagnosis(monitor, last_fault, None)
    num_scores = len(monitor.score_trend.log_scores)
    state, sentence = NOTHING_FOUND, f"nothing was found in {num_rows:,} rows."
    if num_rows < NUM_RECENT or (has_scores and num_scores < MIN_EVALUATIONS):
        needed = f"{NUM_RECENT} rows" + (f" and {MIN_EVALUATIONS} scores" if has_scores else "")
        state, sentence = (
            TOO_EARLY,
            f"the rules need {needed}, and there are {num_rows}" + (f" and {num_scores}." if has_scores else "."),
        )
    return Diagnosis(state, None, _best_step(monitor), {}, None, sentence, _suspicion(monitor))


def _fault_diagnosis(monitor: Monitor, fault: Fault, stop: int | None) -> Diagnosis:
    evidence = {"detected_at": fault.step, **fault.evidence, "message": fault.message, "advice": fault.advice}
    return Diagnosis(fault.name, stop, _best_step(monitor), evidence, fault)


def _suspicion(monitor: Monitor) -> str:
    trend = monitor.score_trend
    if not trend.cusum or math.log(trend.ratio_to_best) < LOG_WORSENING:
        return ""
    return f" The last score is {trend.ratio_to_best:.2f} times the best; if the next ones are as bad, it is a fault."


def _best_step(monitor: Monitor) -> int | None:
    """Return where the best score is. An untrained network is not the best of anything."""
    return monitor.score_trend.best_step or None


def _journal_readings(events: Iterable[Event]) -> Iterator[Reading]:
    for event in events:
        numbers = _numeric_values(event.values)
        if event.kind in {"progress", "checkpoint"} and numbers:
            yield event.images_seen, numbers
        elif event.kind == "fault" and event.values.get("name") == "non-finite":
            yield event.images_seen, _numeric_values(event.values.get("evidence"))


def _numeric_values(values: object) -> dict[str, float]:
    """Return the numeric values by name. Integers beyond the largest float become infinite."""
    items = values.items() if isinstance(values, dict) else ()
    return {name: _to_float(value) for name, value in items if isinstance(value, int | float)}


def _to_float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def read_csv(path: Path) -> tuple[dict[str, list[Reading]], bool]:
    """Return the readings of each run in a table, and whether the table has scores."""
    runs: dict[str, list[Reading]] = {}
    try:
        reject_special_file(path)
        with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
            rows = csv.DictReader(file)
            columns = set(rows.fieldnames or ())
            missing = [name for name in ("step", "d_loss", "g_loss") if name not in columns]
            if missing:
                raise CardiganError(
                    f"{path} has no column {missing[0]}: expected step,d_loss,g_loss and optionally fid and run."
                )
            for row in rows:
                readings = runs.setdefault(row.get("run") or "", [])
                readings.append(_parse_row(row, f"{path}, line {rows.line_num}", readings[-1][0] if readings else None))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CardiganError(
            f"Cannot read {path}: {reason.lower()}. Give a run directory, a journal.jsonl or a .csv."
        ) from error
    if not runs:
        raise CardiganError(f"{path} has no rows: expected one per logged step.")
    return runs, "fid" in columns


def _parse_row(row: Mapping[str, str | None], location: str, previous_step: int | None) -> Reading:
    step = _parse_number(row, "step", location)
    if step is None or not math.isfinite(step):
        raise CardiganError(f"{location}: step is {row.get('step')!r}, expected an integer.")
    if previous_step is not None and step <= previous_step:
        raise CardiganError(
            f"{location}: step {step:g} follows step {previous_step}; expected rows in training order, "
            "and a column run if there are several runs."
        )
    values = {
        metric: value
        for name, metric in METRIC_BY_COLUMN.items()
        if (value := _parse_number(row, name, location)) is not None
    }
    if values.get("score", 1.0) <= 0:
        raise CardiganError(f"{location}: fid is {row.get('fid')!r}, expected a positive number.")
    return int(step), values


def _parse_number(row: Mapping[str, str | None], name: str, location: str) -> float | None:
    text = (row.get(name) or "").strip()
    try:
        return float(text) if text else None
    except ValueError as error:
        raise CardiganError(f"{location}: {name} is {text!r}, expected a number.") from error
