"""`cardigan diagnose RUN|journal.jsonl|FILE.csv`: find what went wrong in a finished training, and where to stop it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from cardigan.cli.parsing import parse
from cardigan.errors import escape_control_characters
from cardigan.health.diagnosis import Diagnosis, diagnose_path


@dataclass(frozen=True, kw_only=True)
class DiagnoseOptions:
    """Find out what went wrong in a training, from its journal or from a table of its losses."""

    path: Annotated[Path, tyro.conf.Positional]
    """A run directory, a journal.jsonl, or a .csv or .csv.gz with columns step,d_loss,g_loss[,fid][,run]."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON: diagnosis, stop_step, best_step and evidence; a list of them for a table with a run column."""


def main(argv: list[str]) -> int:
    """Print the diagnosis; return the exit code."""
    options = parse(DiagnoseOptions, argv, "cardigan diagnose")
    diagnoses = diagnose_path(options.path)
    if options.json:
        results = [
            {**({"run": name} if name else {}), **_diagnosis_json(diagnosis)} for name, diagnosis in diagnoses.items()
        ]
        print(json.dumps(results if "" not in diagnoses else results[0], indent=1))
    else:
        print(escape_control_characters("\n".join(_diagnosis_text(name, each) for name, each in diagnoses.items())))
    return 0


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
        named = "" if diagnosis.sentence.lower().startswith(diagnosis.diagnosis) else f"{diagnosis.diagnosis}: "
        return f"{title}{named}{diagnosis.sentence}{best}{diagnosis.suspicion}"
    numbers = ", ".join(
        f"{key} {value if isinstance(value, str) else format(value, ',')}"
        for key, value in diagnosis.fault.evidence.items()
    )
    action = (
        f"stop at {diagnosis.stop_step:,}"
        if diagnosis.stop_step is not None
        else f"detected at {diagnosis.fault.step:,}, no reason to stop"
    )
    return (
        f"{title}{diagnosis.diagnosis} ({action}): {diagnosis.fault.message}.{best}\n"
        f"  evidence   {numbers}\n  advice     {diagnosis.fault.advice}"
    )
