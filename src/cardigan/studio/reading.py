"""What a run is and how far it is, from its files alone, as the plain JSON values the page shows.

Reads nothing twice: journals are taken up where they were left. Imports no torch, so a studio that only shows curves stays small.
"""

import json
import re
import threading
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cardigan.config import Config, flatten, from_dict
from cardigan.errors import CardiganError
from cardigan.figures.layout import BAR, GAP, SheetLayout
from cardigan.run.directory import RunDirectory, is_taken, read_config
from cardigan.studio.digest import Digest
from cardigan.studio.journal import Track
from cardigan.studio.places import Folder, NotThere, is_model

MAX_CONFIG_BYTES = 1 << 20
TRACKS_BYTES = 256 << 20
"""How much of read journals is kept; the one longest unused goes first."""
MAX_HEADER_BYTES = 16 << 20
DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)
"""What a file of weights raises that is none, or no longer whole."""
DONE = {"images", "minutes"}
"""Why a run stops that has done what it was to do."""


class Reading:
    """Everything read so far of the runs in one folder; may be asked from several threads."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._digests: dict[Path, Digest] = {}
        self._tracks: OrderedDict[Path, Track] = OrderedDict()
        self._configs: dict[Path, tuple[tuple[int, int, int], Config]] = {}
        self._lock = threading.Lock()  # of what is known of which run; never held while a file is read

    def summaries(self) -> list[dict[str, Any]]:
        """Return every run's summary, those changed last first."""
        found = [self._summary_of(identity) for identity in self.folder.runs()]
        with self._lock:
            there = {self.folder.path / entry["id"] for entry in found}
            for gone in self._digests.keys() - there:
                del self._digests[gone]
            for gone in self._configs.keys() - there:
                del self._configs[gone]
        return sorted(found, key=lambda entry: -entry["changed"])

    def summary(self, identity: str) -> dict[str, Any]:
        """Return one run's summary; raises NotThere."""
        self.folder.run(identity)
        return self._summary_of(identity)

    def details(self, identity: str) -> dict[str, Any]:
        """Return the summary with all that the page needs to show the run; raises NotThere, and CardiganError if it is unreadable."""
        run = self.folder.run(identity)
        offset = 0 if is_model(run) else self.digest(run).offset  # before all else: what comes meanwhile is rather told twice than never
        summary, config = self.summary(identity), self.config(run)
        classes, names = classes_of(run, config)
        kept = checkpoints(run)
        scores = {} if is_model(run) else dict(self.digest(run).scores)
        best = min((scores[seen] for seen in kept if seen in scores), default=None)
        return {
            **summary,
            "settings": flatten(config),
            "classes": classes,
            "class_names": names,
            "latent_size": config.latent.size,
            "latent_distribution": config.latent.distribution,
            "layout": layout_json(self.layout(run, config), config),
            "sheets": sheets(run),
            "checkpoints": [{"images_seen": seen, "score": scores.get(seen), "best": seen in scores and scores[seen] == best} for seen in kept],
            "has_discriminator": bool(kept),
            "films": ["webp", "gif", *(["mp4"] if find_spec("imageio_ffmpeg") else [])],
            "offset": offset,
        }

    def config(self, run: RunDirectory) -> Config:
        """Return the run's config; raises CardiganError where it is damaged, NotThere where it is gone."""
        if is_model(run):
            return _config_of_model(run)
        path = self.folder.file(run, run.config, "config.json")
        try:
            facts = path.stat()
        except OSError as error:
            raise NotThere(f"The run {run.path.name!r} is gone.") from error
        if facts.st_size > MAX_CONFIG_BYTES:
            raise CardiganError(f"{path} has {facts.st_size:,} bytes, so it is no config of cardigan's: restore it from a backup.")
        mark = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
        with self._lock:
            known = self._configs.get(run.path)
            if known and known[0] == mark:
                return known[1]
        try:
            config = read_config(run)
        except (RecursionError, OverflowError) as error:
            raise CardiganError(f"{path} is damaged: restore it from a backup.") from error
        with self._lock:
            self._configs[run.path] = (mark, config)
        return config

    def digest(self, run: RunDirectory) -> Digest:
        """Return what the run's journal says in short, as of now."""
        with self._lock:
            digest = self._digests.setdefault(run.path, Digest(run.journal))
        with digest.lock:
            digest.read()
        return digest

    def track(self, run: RunDirectory) -> Track:
        """Return the run's journal as numbers, as of now."""
        with self._lock:
            track = self._tracks.pop(run.path, None) or Track(run.journal)
            self._tracks[run.path] = track
        with track.lock:
            track.read()
        with self._lock:
            while len(self._tracks) > 1 and sum(known.num_bytes for known in self._tracks.values()) > TRACKS_BYTES:
                self._tracks.popitem(last=False)
        return track

    def layout(self, run: RunDirectory, config: Config) -> SheetLayout:
        """Return how the run's sample sheets are laid out."""
        if is_model(run):
            return SheetLayout(16, config.data.height, config.data.width)
        return SheetLayout(self.digest(run).num_samples or min(config.batch, 64), config.data.height, config.data.width)

    def _summary_of(self, identity: str) -> dict[str, Any]:
        path = self.folder.path / identity
        run = RunDirectory(path)
        empty = _summary(identity, path.name if identity != "." else self.folder.path.name, run)
        try:
            self.folder.run(identity)
            journal = _of_model(run) if is_model(run) else self._of_journal(run)
            return {**empty, **_of_config(self.config(run)), **journal, "error": None}
        except (CardiganError, OSError) as error:
            return {**empty, "state": "unreadable", "error": str(error)}

    def _of_journal(self, run: RunDirectory) -> dict[str, Any]:
        digest = self.digest(run)
        with digest.lock:
            scores, faults, last = digest.scores, digest.faults, digest.last
            best = min(scores, key=lambda pair: pair[1]) if scores else None
            state, reason = _state(digest, is_taken(run))
            return {
                "state": state,
                "reason": reason,
                "images_seen": last.images_seen if last else 0,
                "elapsed_seconds": last.elapsed_seconds if last else 0.0,
                "images_per_second": digest.speed,
                "score_last": scores[-1][1] if scores else None,
                "score_best": best[1] if best else None,
                "score_best_at": best[0] if best else None,
                "health": "grave" if any(grave for _, _, grave in faults) else "warning" if faults else "fine",
                "fault_names": list(dict.fromkeys(name for _, name, _ in faults)),
                "sheet": digest.sheet,
            }


def _state(digest: Digest, taken: bool) -> tuple[str, str | None]:
    """Return a run's state in a word, and why it stopped."""
    last = digest.last
    if taken and (last is None or last.kind != "stop"):  # after its last word it still writes its report, and no event tells of its end
        return "training", None
    if last is None:
        return "waiting", None
    if last.kind != "stop":
        return "broken", None  # it ended without a word: killed, or by an error
    reason = str(last.values.get("reason"))
    return "finished" if reason in DONE else "stopped", reason


def _summary(identity: str, name: str, run: RunDirectory) -> dict[str, Any]:
    """Return the summary of a run of which nothing is known but where it lies."""
    changed = _modified(run.journal) or _modified(run.config) or _modified(run.path)
    return {
        **{"id": identity, "name": name, "state": "unreadable", "reason": None, "recipe": "", "source": "", "images_seen": 0, "images_goal": None},
        **{"minutes_goal": None, "elapsed_seconds": 0.0, "images_per_second": None, "score_last": None, "score_best": None, "score_best_at": None},
        **{"health": "fine", "fault_names": [], "started": _modified(run.path / "lock") or _modified(run.config), "changed": changed},
        **{"sheet": None, "conditional": False, "size": "", "error": None},
    }


def _of_config(config: Config) -> dict[str, Any]:
    data = config.data
    return {
        **{"recipe": config.recipe, "source": data.source, "images_goal": config.images, "minutes_goal": config.minutes},
        **{"conditional": config.conditional, "size": f"{data.height}x{data.width}x{data.channels}"},
    }


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def sheets(run: RunDirectory) -> list[int]:
    """Return the images_seen of every sample sheet, in order."""
    return sorted(int(path.stem) for path in run.samples.glob("[0-9]*.png") if re.fullmatch("[0-9]+", path.stem))


def checkpoints(run: RunDirectory) -> list[int]:
    """Return the images_seen of every checkpoint that is kept, in order."""
    return sorted(int(path.parent.name) for path in run.checkpoints.glob("[0-9]*/state.safetensors") if re.fullmatch("[0-9]+", path.parent.name))


def classes_of(run: RunDirectory, config: Config) -> tuple[int, list[str]]:
    """Return how many classes the run's generator was told of, and their names if they have any; from its file's header."""
    if not config.conditional:
        return 0, []
    try:
        facts = _facts(run.path if is_model(run) else run.generator)
        return int(facts["classes"]), [str(name) for name in facts.get("class_names", [])]
    except DAMAGED:
        return 0, []  # no checkpoint yet, or one that is no longer whole: reading the model will say so


def _facts(weights: Path) -> dict[str, Any]:
    """Return what a file of weights says of itself, reading no weight."""
    with weights.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(size, MAX_HEADER_BYTES)))
    return json.loads(header["__metadata__"]["cardigan"])


def _config_of_model(run: RunDirectory) -> Config:
    try:
        return from_dict(_facts(run.path)["config"])
    except DAMAGED as error:
        raise CardiganError(f"{run.path} holds no model of cardigan's, or a damaged one: give another copy of it.") from error


def _of_model(run: RunDirectory) -> dict[str, Any]:
    try:
        return {"state": "model", "images_seen": int(_facts(run.path)["images_seen"])}
    except DAMAGED as error:
        raise CardiganError(f"{run.path} is damaged: give another copy of it.") from error


def layout_json(layout: SheetLayout, config: Config) -> dict[str, int]:
    """Return where each tile of a sheet lies, in pixels."""
    channels = config.data.channels
    return {
        **{"count": layout.count, "columns": layout.columns, "rows": layout.rows, "width": layout.width, "height": layout.height},
        **{"channels": channels if channels in {1, 3, 4} else 1, "gap": GAP, "bar": BAR, "real_left": layout.real_left},
    }
