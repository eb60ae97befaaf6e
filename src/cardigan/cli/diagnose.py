"""`cardigan diagnose RUN|journal.jsonl|FILE.csv`: what went wrong in a training that is over, and where it should have been stopped.

Reads rows in order through the same monitor that watches live runs. Knows no torch.
"""

import csv
import gzip
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from cardigan.cli.parsing import parse
from cardigan.errors import CardiganError
from cardigan.health.faults import Fault
from cardigan.health.monitor import Monitor
from cardigan.run.journal import read_events

Reading = tuple[int, Mapping[str, float]]
METRIC_BY_COLUMN = {"d_loss": "discriminator_loss", "g_loss": "generator_loss", "fid": "score"}


@dataclass(frozen=True, kw_only=True)
class DiagnoseOptions:
    """Say what went wrong in a training, from its journal or from a table of its losses."""

    path: Annotated[Path, tyro.conf.Positional]
    """A run directory, a journal.jsonl, or a .csv (also .csv.gz) with columns step,d_loss,g_loss and, if there are, fid and run."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON: diagnosis, stop_step, best_step and evidence; a list of them, each with its run, for a table with a run column."""


@dataclass(frozen=True)
class Diagnosis:
    """What the monitor said of one run."""

    diagnosis: str
    """The fault that should have stopped it; else the last of the lesser ones; else healthy."""
    stop_step: int | None
    """Where to stop: steps of a table, images of a journal; None if nothing was fatal."""
    best_step: int | None
    """Where the best score was, of those read until then; None without scores."""
    evidence: dict[str, Any]
    fault: Fault | None


def main(argv: list[str]) -> int:
    """Diagnose what the words name; return the exit code."""
    options = parse(DiagnoseOptions, argv, "cardigan diagnose")
    diagnoses = diagnose_path(options.path)
    if options.json:
        results = [
            {**({"run": name} if name else {}), **_diagnosis_json(diagnosis)} for name, diagnosis in diagnoses.items()
        ]
        print(json.dumps(results if "" not in diagnoses else results[0], indent=1))
    else:
        print("\n".join(_diagnosis_text(name, each) for name, each in diagnoses.items()))
    return 0


def diagnose_path(path: Path) -> dict[str, Diagnosis]:
    """Return the diagnosis of each run in a file or folder by its name, "" where there is one run without a name.

    Raises CardiganError for what cannot be read.
    """
    if path.name.endswith((".csv", ".csv.gz")):
        runs, has_scores = read_csv(path)
        return {name: diagnose(readings, has_scores) for name, readings in runs.items()}
    journal = path / "journal.jsonl" if path.is_dir() else path
    if not journal.is_file():
        raise CardiganError(f"{path} holds no journal: give a run directory, a journal.jsonl or a .csv.")
    readings = list(_journal_readings(journal))
    if not readings:
        raise CardiganError(
            f"{journal} holds no line of a training: give the journal.jsonl that `cardigan train` wrote, or a .csv."
        )
    return {"": diagnose(readings, any("score" in values for _, values in readings))}


def diagnose(readings: Iterable[Reading], has_scores: bool) -> Diagnosis:
    """Read until the first fatal fault and return what is known there; `has_scores` says that scores belong to these readings."""
    monitor, last_fault = Monitor(has_scores), None
    for position, values in readings:
        for fault in monitor.observe(position, values):
            last_fault = fault
            if fault.fatal:
                return _make_diagnosis(monitor, fault, position)
    return _make_diagnosis(monitor, last_fault, None)


def _make_diagnosis(monitor: Monitor, fault: Fault | None, stop: int | None) -> Diagnosis:
    evidence = (
        {}
        if fault is None
        else {"detected_at": fault.step, **fault.evidence, "message": fault.message, "advice": fault.advice}
    )
    return Diagnosis("healthy" if fault is None else fault.name, stop, monitor.score_trend.best_step, evidence, fault)


def _journal_readings(path: Path) -> Iterator[Reading]:
    for event in read_events(path):
        numbers = _finite_or_infinite(event.values)
        if event.kind in {"progress", "checkpoint"} and numbers:
            yield event.images_seen, numbers
        elif event.kind == "fault" and event.values.get("name") == "non-finite":
            yield event.images_seen, _finite_or_infinite(event.values.get("evidence"))


def _finite_or_infinite(values: object) -> dict[str, float]:
    """Return what is a number among named values, however large: one beyond the largest float is infinite."""
    items = values.items() if isinstance(values, dict) else ()
    return {name: _to_float(value) for name, value in items if isinstance(value, int | float)}


def _to_float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def read_csv(path: Path) -> tuple[dict[str, list[Reading]], bool]:
    """Return the readings of each run in a table, and whether it has scores."""
    runs: dict[str, list[Reading]] = {}
    try:
        with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
            rows = csv.DictReader(file)
            columns = set(rows.fieldnames or ())
            missing = [name for name in ("step", "d_loss", "g_loss") if name not in columns]
            if missing:
                raise CardiganError(
                    f"{path} has no column {missing[0]}: expected step,d_loss,g_loss and, if there are, fid and run."
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
        raise CardiganError(f"{path} has no rows: expected one for each step that was logged.")
    return runs, "fid" in columns


def _parse_row(row: Mapping[str, str | None], location: str, previous_step: int | None) -> Reading:
    step = _parse_number(row, "step", location)
    if step is None or not math.isfinite(step):
        raise CardiganError(f"{location}: step is {row.get('step')!r}, expected a whole number.")
    if previous_step is not None and step <= previous_step:
        raise CardiganError(
            f"{location}: step {step:g} follows step {previous_step}; expected rows in the order of training, with a column run if there are several."
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


def _diagnosis_json(diagnosis: Diagnosis) -> dict[str, Any]:
    return {
        "diagnosis": diagnosis.diagnosis,
        "stop_step": diagnosis.stop_step,
        "best_step": diagnosis.best_step,
        "evidence": diagnosis.evidence,
    }


def _diagnosis_text(name: str, diagnosis: Diagnosis) -> str:
    best = "" if diagnosis.best_step is None else f" Best score at {diagnosis.best_step:,}."
    title = f"{name}: " if name else ""
    if diagnosis.fault is None:
        return f"{title}healthy: nothing was found.{best}"
    numbers = ", ".join(
        f"{key} {value if isinstance(value, str) else format(value, ',')}"
        for key, value in diagnosis.fault.evidence.items()
    )
    action = (
        f"stop at {diagnosis.stop_step:,}"
        if diagnosis.stop_step is not None
        else f"noticed at {diagnosis.fault.step:,}, no reason to stop"
    )
    return f"{title}{diagnosis.diagnosis} ({action}): {diagnosis.fault.message}.{best}\n  shown by   {numbers}\n  what to try   {diagnosis.fault.advice}"
