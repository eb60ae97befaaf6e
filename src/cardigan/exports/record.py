"""What a run remembers of a generator: how long it took, on what, how it was judged; and the command that trains it again.

Reads run directories; judges nothing. Paths of the machine it was trained on are left out of what is told.
"""

import re
import shlex
from dataclasses import dataclass, replace
from html import unescape
from pathlib import Path
from typing import Any

from cardigan.config import Config, identity
from cardigan.errors import CardiganError
from cardigan.recipes import config_for
from cardigan.run.directory import RunDirectory, read_config, read_provenance
from cardigan.run.journal import Event, read_events
from cardigan.run.snapshot import Snapshot

EMBEDDED = ("mnist", "stacked-mnist")
CHOSEN = ("data.channels", "data.held_out")
"""What `cardigan train --recipe` still chooses for a source of the user's own, unless it is told."""
QUERY = re.compile(r"(https?://[^?#]*).*", re.IGNORECASE | re.DOTALL)
USER = re.compile(r"://[^/]*@")
ON_DISK = re.compile(r"\b(file|local)://", re.IGNORECASE)
"""What of an address can hold a password, or is a path of this machine."""


@dataclass(frozen=True)
class Row:
    """One number of the judge's, as text."""

    name: str
    value: str
    error: str
    real: str = ""


@dataclass(frozen=True)
class Record:
    """What is known of how a generator came to be; empty where it lies in no run."""

    seconds: float | None = None
    environment: dict[str, Any] | None = None
    score: float | None = None
    """The cheap one of its checkpoint."""
    rows: tuple[Row, ...] = ()
    protocol: str = ""


def given_away(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot as it may leave this machine: its settings name the pictures, not where they lie."""
    data = snapshot.config.data
    labels = Path(data.labels).name if data.labels else data.labels
    return replace(snapshot, config=replace(snapshot.config, data=replace(data, source=told_source(snapshot.config), labels=labels)))


def record_of(model: Path | None, snapshot: Snapshot) -> Record:
    """Return what the run that a model lies in remembers of that moment; nothing of a run that it is not of."""
    images_seen = snapshot.images_seen
    folders = [] if model is None or snapshot.foreign else [model, *model.absolute().parents[:2]]
    run = next((RunDirectory(folder) for folder in folders if (folder / "journal.jsonl").is_file() and (folder / "config.json").is_file()), None)
    if run is None or not _is_of(run, snapshot):
        return Record()
    try:
        environment = read_provenance(run)
    except CardiganError:
        environment = {}
    there = [event for event in read_events(run.journal) if event.images_seen == images_seen]
    rows, protocol = judged_in_report(run.path / "report.html", images_seen)
    return Record(there[-1].elapsed_seconds if there else None, environment, _score(there), rows, protocol)


def _is_of(run: RunDirectory, snapshot: Snapshot) -> bool:
    """Return whether these settings are the run's."""
    try:
        return identity(read_config(run)) == identity(snapshot.config)
    except CardiganError:
        return False


def _score(events: list[Event]) -> float | None:
    scores = [event.values["score"] for event in events if event.kind == "checkpoint" and isinstance(event.values.get("score"), int | float)]
    return float(scores[-1]) if scores else None


def judged_in_report(path: Path, images_seen: int) -> tuple[tuple[Row, ...], str]:
    """Return the judge's table of a run's report and its protocol; nothing if there is none, or if it is of another moment."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return (), ""
    seen = re.search(r"<th>images seen</th><td>([\d,]+)</td>", text)
    part = re.search(r"<h2>How good it is</h2><table>(.*?)</table><p class=\"small\">(.*?)</p>", text, re.DOTALL)
    if seen is None or part is None or int(seen[1].replace(",", "")) != images_seen:
        return (), ""
    number = r'<td class="number">([^<]*)</td>'
    rows = re.findall(rf"<tr><th>([^<]*)</th>{number * 3}", part[1])
    return tuple(Row(*map(unescape, row)) for row in rows), unescape(part[2]).strip()


def told_source(config: Config) -> str:
    """Return what the pictures are called, without the folders of this machine that they lie in, and without what an address holds of passwords."""
    source = config.data.source
    if "://" in source:
        return _told_address(source)
    if source.startswith("hf:"):
        name = source.removeprefix("hf:").partition(":")[0]
        return _last(name) if _is_folder(name) else source
    return source if source in EMBEDDED else _last(source)


def _told_address(source: str) -> str:
    """Return an address, or a chain of them (`tar://...::https://...`), without a web address' query, users, and folders of this machine."""
    bare = USER.sub("://", QUERY.sub(r"\1", source))
    return "::".join(link if "://" in link and not ON_DISK.search(link) else _last(link) for link in bare.split("::"))


def _is_folder(name: str) -> bool:
    """Return whether what follows `hf:` can only be a folder; on the hub it is NAME or USER/NAME."""
    return name.startswith((".", "~")) or Path(name).is_absolute() or name.count("/") > 1


def _last(path: str) -> str:
    return Path(path).name or path


def training_command(config: Config, images_seen: int) -> str:
    """Return the command that trains an equal generator: the recipe, what differs from it, and as many images."""
    source = told_source(config)
    words = ["cardigan", "train", source, "--recipe", config.recipe, "--images", str(images_seen)]
    try:
        usual = identity(config_for(config.data.source, config.recipe))
    except CardiganError:
        return shlex.join(["cardigan", "train", source, "--config", "config.json", "--images", str(images_seen)])
    for name, value in identity(config).items():
        told = config.data.source not in EMBEDDED and name in CHOSEN
        if name not in {"recipe", "data.source"} and (told or value != usual[name]):
            words += _option(name, Path(value).name if name == "data.labels" else value)
    return shlex.join(words)


def _option(name: str, value: object) -> list[str]:
    section, _, leaf = name.replace("_", "-").rpartition(".")
    before = f"--{section}." if section else "--"
    return [f"{before}{'' if value else 'no-'}{leaf}"] if isinstance(value, bool) else [f"{before}{leaf}", str(value)]
