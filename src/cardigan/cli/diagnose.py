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
from cardigan.run.journal import read_events
from cardigan.training.faults import Fault
from cardigan.training.health import Monitor

Reading = tuple[int, Mapping[str, float]]
COLUMNS = {"d_loss": "discriminator_loss", "g_loss": "generator_loss", "fid": "score"}


@dataclass(frozen=True, kw_only=True)
class DiagnoseOptions:
    """Say what went wrong in a training, from its journal or from a table of its losses."""

    path: Annotated[Path, tyro.conf.Positional]
    """A run directory, a journal.jsonl, or a .csv (also .csv.gz) with columns step,d_loss,g_loss and, if there are, fid and run."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON: verdict, stop_step, best_step and evidence; a list of them, each with its run, for a table with a run column."""


@dataclass(frozen=True)
class Diagnosis:
    """What the monitor said of one run."""

    verdict: str
    """The fault that should have stopped it; else the last of the lesser ones; else healthy."""
    stop_step: int | None
    """Where to stop: steps of a table, images of a journal; None if nothing was grave."""
    best_step: int | None
    """Where the best score was, of those read until then; None without scores."""
    evidence: dict[str, Any]
    fault: Fault | None


def main(words: list[str]) -> int:
    """Diagnose what the words name; return the exit code."""
    options = parse(DiagnoseOptions, words, "cardigan diagnose")
    found = diagnose_path(options.path)
    if options.json:
        facts = [{**({"run": name} if name else {}), **_facts(each)} for name, each in found.items()]
        print(json.dumps(facts if "" not in found else facts[0], indent=1))
    else:
        print("\n".join(_text(name, each) for name, each in found.items()))
    return 0


def diagnose_path(path: Path) -> dict[str, Diagnosis]:
    """Return the diagnosis of each run in a file or folder by its name, "" where there is one run without a name.

    Raises CardiganError for what cannot be read.
    """
    if path.name.endswith((".csv", ".csv.gz")):
        runs, judged = read_table(path)
        return {name: diagnose(readings, judged) for name, readings in runs.items()}
    journal = path / "journal.jsonl" if path.is_dir() else path
    if not journal.is_file():
        raise CardiganError(f"{path} holds no journal: give a run directory, a journal.jsonl or a .csv.")
    readings = list(_journal(journal))
    if not readings:
        raise CardiganError(f"{journal} holds no line of a training: give the journal.jsonl that `cardigan train` wrote, or a .csv.")
    return {"": diagnose(readings, any("score" in values for _, values in readings))}


def diagnose(readings: Iterable[Reading], judged: bool) -> Diagnosis:
    """Read until the first grave fault and return what is known there; `judged` says that scores belong to these readings."""
    monitor, last = Monitor(judged), None
    for position, values in readings:
        for fault in monitor.observe(position, values):
            last = fault
            if fault.grave:
                return _diagnosis(monitor, fault, position)
    return _diagnosis(monitor, last, None)


def _diagnosis(monitor: Monitor, fault: Fault | None, stop: int | None) -> Diagnosis:
    evidence = {} if fault is None else {"noticed_at": fault.position, **fault.evidence, "words": fault.words, "advice": fault.advice}
    return Diagnosis("healthy" if fault is None else fault.name, stop, monitor.trend.best_at, evidence, fault)


def _journal(path: Path) -> Iterator[Reading]:
    for event in read_events(path):
        numbers = _numbers(event.values)
        if event.kind in {"progress", "checkpoint"} and numbers:
            yield event.images_seen, numbers
        elif event.kind == "fault" and event.values.get("name") == "non-finite":
            yield event.images_seen, _numbers(event.values.get("evidence"))


def _numbers(values: object) -> dict[str, float]:
    """Return what is a number among named values, however large: one beyond the largest float is infinite."""
    named = values.items() if isinstance(values, dict) else ()
    return {name: _float(value) for name, value in named if isinstance(value, int | float)}


def _float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def read_table(path: Path) -> tuple[dict[str, list[Reading]], bool]:
    """Return the readings of each run in a table, and whether it has scores."""
    runs: dict[str, list[Reading]] = {}
    try:
        with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
            rows = csv.DictReader(file)
            columns = set(rows.fieldnames or ())
            missing = [name for name in ("step", "d_loss", "g_loss") if name not in columns]
            if missing:
                raise CardiganError(f"{path} has no column {missing[0]}: expected step,d_loss,g_loss and, if there are, fid and run.")
            for row in rows:
                readings = runs.setdefault(row.get("run") or "", [])
                readings.append(_row(row, f"{path}, line {rows.line_num}", readings[-1][0] if readings else None))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CardiganError(f"Cannot read {path}: {why.lower()}. Give a run directory, a journal.jsonl or a .csv.") from error
    if not runs:
        raise CardiganError(f"{path} has no rows: expected one for each step that was logged.")
    return runs, "fid" in columns


def _row(row: Mapping[str, str | None], where: str, before: int | None) -> Reading:
    step = _number(row, "step", where)
    if step is None or not math.isfinite(step):
        raise CardiganError(f"{where}: step is {row.get('step')!r}, expected a whole number.")
    if before is not None and step <= before:
        raise CardiganError(
            f"{where}: step {step:g} follows step {before}; expected rows in the order of training, with a column run if there are several."
        )
    values = {ours: value for name, ours in COLUMNS.items() if (value := _number(row, name, where)) is not None}
    if values.get("score", 1.0) <= 0:
        raise CardiganError(f"{where}: fid is {row.get('fid')!r}, expected a positive number.")
    return int(step), values


def _number(row: Mapping[str, str | None], name: str, where: str) -> float | None:
    text = (row.get(name) or "").strip()
    try:
        return float(text) if text else None
    except ValueError as error:
        raise CardiganError(f"{where}: {name} is {text!r}, expected a number.") from error


def _facts(found: Diagnosis) -> dict[str, Any]:
    return {"verdict": found.verdict, "stop_step": found.stop_step, "best_step": found.best_step, "evidence": found.evidence}


def _text(name: str, found: Diagnosis) -> str:
    best = "" if found.best_step is None else f" Best score at {found.best_step:,}."
    title = f"{name}: " if name else ""
    if found.fault is None:
        return f"{title}healthy: nothing was found.{best}"
    numbers = ", ".join(f"{key} {value if isinstance(value, str) else format(value, ',')}" for key, value in found.fault.evidence.items())
    where = f"stop at {found.stop_step:,}" if found.stop_step is not None else f"noticed at {found.fault.position:,}, no reason to stop"
    return f"{title}{found.verdict} ({where}): {found.fault.words}.{best}\n  shown by   {numbers}\n  what to try   {found.fault.advice}"
