"""The training record of a generator: duration, environment, metrics, and the command that trains it again.

Reads run directories; evaluates nothing. The record holds no paths of the training machine.
"""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardigan.config import BUILTIN_SOURCES, Config
from cardigan.errors import CardiganError
from cardigan.exports.anonymize import public_source, without_local_paths
from cardigan.metrics.protocol import baseline_text
from cardigan.models.snapshot import Snapshot
from cardigan.overrides import experiment_settings
from cardigan.recipes import AUTOMATIC_RECIPES, AUTOMATIC_SETTINGS, config_for
from cardigan.run.directory import RunDirectory, read_config, read_provenance
from cardigan.run.journal import Event, read_events

AUTO_FIELDS = ("data.channels", "data.holdout")
"""What `cardigan train --recipe` chooses for a custom source unless it is given, with any recipe."""


@dataclass(frozen=True)
class MetricRow:
    """One row of the card's metric table, as text."""

    name: str
    value: str
    error: str
    baseline: str = ""


@dataclass(frozen=True)
class TrainingRecord:
    """What is known about a generator's training. Empty if the generator is not in a run directory."""

    seconds: float | None = None
    environment: dict[str, Any] | None = None
    score: float | None = None
    """Quick score of the checkpoint."""
    metric_rows: tuple[MetricRow, ...] = ()
    protocol: str = ""


def training_record(model: Path | None, snapshot: Snapshot) -> TrainingRecord:
    """Return the training record from the run directory that contains the model.

    The record is empty if there is no such run, or if the snapshot's settings differ from the run's.
    """
    images_seen = snapshot.images_seen
    folders = [] if model is None or snapshot.foreign else [model, *model.absolute().parents[:2]]
    run = next(
        (
            RunDirectory(folder)
            for folder in folders
            if (folder / "journal.jsonl").is_file() and (folder / "config.json").is_file()
        ),
        None,
    )
    if run is None or not _is_from_run(run, snapshot):
        return TrainingRecord()
    try:
        environment = read_provenance(run)
    except CardiganError:
        environment = {}
    events = [event for event in read_events(run.journal) if event.images_seen == images_seen]
    rows, protocol = read_report_metrics(run.report, images_seen)
    return TrainingRecord(
        events[-1].elapsed_seconds if events else None, environment, _checkpoint_score(events), rows, protocol
    )


def _is_from_run(run: RunDirectory, snapshot: Snapshot) -> bool:
    """Return whether the snapshot has the run's settings."""
    try:
        return experiment_settings(read_config(run)) == experiment_settings(snapshot.config)
    except CardiganError:
        return False


def _checkpoint_score(events: list[Event]) -> float | None:
    scores = [
        event.values["score"]
        for event in events
        if event.kind == "checkpoint" and isinstance(event.values.get("score"), int | float)
    ]
    return float(scores[-1]) if scores else None


def read_report_metrics(path: Path, images_seen: int) -> tuple[tuple[MetricRow, ...], str]:
    """Return the metric rows and the protocol line of a run's `report.json`.

    Both are empty if the file is missing or damaged, or if it evaluates another number of images seen.
    """
    try:
        content = json.loads(path.read_bytes())
        rows = tuple(_metric_row(metric) for metric in content["metrics"])
        return (rows, str(content["protocol"])) if rows and content["images_seen"] == images_seen else ((), "")
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return (), ""


def _metric_row(metric: dict[str, Any]) -> MetricRow:
    baseline, error = metric["real_baseline"], metric["standard_error"]
    real, count = metric["real_baseline_error"], metric.get("real_baseline_samples")
    error_text = "" if error is None else f"{error:.2g}"
    baseline = "" if baseline is None else baseline_text(baseline, real, count)
    return MetricRow(str(metric["key"]), f"{metric['value']:.4g}", error_text, baseline)


def training_command(config: Config, images_seen: int) -> str:
    """Return the command that trains an equal generator: recipe, settings that differ from it, and number of images."""
    source, public = public_source(config), without_local_paths(config)
    args = ["cardigan", "train", source, "--recipe", config.recipe, "--images", str(images_seen)]
    try:
        defaults = experiment_settings(config_for(config.data.source, config.recipe))
    except CardiganError:
        return shlex.join(["cardigan", "train", source, "--config", "config.json", "--images", str(images_seen)])
    automatic = AUTOMATIC_SETTINGS if config.recipe in AUTOMATIC_RECIPES else AUTO_FIELDS
    for name, value in experiment_settings(public).items():
        is_auto = config.data.source not in BUILTIN_SOURCES and name in automatic
        if isinstance(value, dict):
            # A penalty that is left out has weight 0. An option that is left out belongs to another network.
            names = {*defaults[name], *value} if name == "objective.penalties" else value
            for key in sorted(names):
                if is_auto or value.get(key, 0.0) != defaults[name].get(key, 0.0):
                    args += _command_option(f"{name}.{key}", value.get(key, 0.0))
        elif name not in {"recipe", "data.source"} and (is_auto or value != defaults[name]):
            args += _command_option(name, value)
    return shlex.join(args)


def _command_option(name: str, value: object) -> list[str]:
    if name == "start_from":
        return ["--from", str(value)]
    section, _, leaf = name.replace("_", "-").rpartition(".")
    prefix = f"--{section}." if section else "--"
    return [f"{prefix}{'' if value else 'no-'}{leaf}"] if isinstance(value, bool) else [f"{prefix}{leaf}", str(value)]
