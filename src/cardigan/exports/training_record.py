"""What a run remembers of a generator: how long it took, on what, how it was judged; and the command that trains it again.

Reads run directories; judges nothing. Paths of the machine it was trained on are left out of what is told.
"""

import re
import shlex
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

from cardigan.config import Config, experiment_settings
from cardigan.errors import CardiganError
from cardigan.exports.anonymize import EMBEDDED_SOURCES, public_source
from cardigan.models.snapshot import Snapshot
from cardigan.recipes import config_for
from cardigan.run.directory import RunDirectory, read_config, read_provenance
from cardigan.run.journal import Event, read_events

AUTO_FIELDS = ("data.channels", "data.holdout")
"""What `cardigan train --recipe` still chooses for a source of the user's own, unless it is told."""


@dataclass(frozen=True)
class MetricRow:
    """One number of the judge's, as text."""

    name: str
    value: str
    error: str
    baseline: str = ""


@dataclass(frozen=True)
class TrainingRecord:
    """What is known of how a generator came to be; empty where it lies in no run."""

    seconds: float | None = None
    environment: dict[str, Any] | None = None
    score: float | None = None
    """The quick score of its checkpoint."""
    metric_rows: tuple[MetricRow, ...] = ()
    protocol: str = ""


def training_record(model: Path | None, snapshot: Snapshot) -> TrainingRecord:
    """Return what the run that a model lies in remembers of that moment; nothing of a run that it is not of."""
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
    rows, protocol = metrics_in_report(run.path / "report.html", images_seen)
    return TrainingRecord(
        events[-1].elapsed_seconds if events else None, environment, _checkpoint_score(events), rows, protocol
    )


def _is_from_run(run: RunDirectory, snapshot: Snapshot) -> bool:
    """Return whether these settings are the run's."""
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


def metrics_in_report(path: Path, images_seen: int) -> tuple[tuple[MetricRow, ...], str]:
    """Return the judge's table of a run's report and its protocol; nothing if there is none, or if it is of another moment."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return (), ""
    images_seen_match = re.search(r"<th>images seen</th><td>([\d,]+)</td>", text)
    table_match = re.search(r"<h2>Metrics</h2><table>(.*?)</table><p class=\"small\">(.*?)</p>", text, re.DOTALL)
    if images_seen_match is None or table_match is None or int(images_seen_match[1].replace(",", "")) != images_seen:
        return (), ""
    number_pattern = r'<td class="number">([^<]*)</td>'
    rows = re.findall(rf"<tr><th>([^<]*)</th>{number_pattern * 3}", table_match[1])
    return tuple(MetricRow(*map(unescape, row)) for row in rows), unescape(table_match[2]).strip()


def training_command(config: Config, images_seen: int) -> str:
    """Return the command that trains an equal generator: the recipe, what differs from it, and as many images."""
    source = public_source(config)
    args = ["cardigan", "train", source, "--recipe", config.recipe, "--images", str(images_seen)]
    try:
        defaults = experiment_settings(config_for(config.data.source, config.recipe))
    except CardiganError:
        return shlex.join(["cardigan", "train", source, "--config", "config.json", "--images", str(images_seen)])
    for name, value in experiment_settings(config).items():
        is_auto = config.data.source not in EMBEDDED_SOURCES and name in AUTO_FIELDS
        if name not in {"recipe", "data.source"} and (is_auto or value != defaults[name]):
            args += _command_option(name, Path(value).name if name == "data.labels" else value)
    return shlex.join(args)


def _command_option(name: str, value: object) -> list[str]:
    section, _, leaf = name.replace("_", "-").rpartition(".")
    prefix = f"--{section}." if section else "--"
    return [f"{prefix}{'' if value else 'no-'}{leaf}"] if isinstance(value, bool) else [f"{prefix}{leaf}", str(value)]
