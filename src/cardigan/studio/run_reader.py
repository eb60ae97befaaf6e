"""Summaries and details of runs, read from their files, as JSON values.

Journals are read incrementally. Does not import torch, so that a studio that only shows curves needs little memory.
"""

import json
import re
import shlex
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cardigan.config import Config
from cardigan.errors import CardiganError
from cardigan.figures.layout import DIVIDER, GAP, GridLayout
from cardigan.health.status import OLD_FRACTION
from cardigan.overrides import flatten, from_dict
from cardigan.run.directory import RunDirectory, is_locked, read_config_json
from cardigan.run.stopping import resume_command, run_state, state_sentence
from cardigan.studio.annotations import read_annotations
from cardigan.studio.journal_tail import parse_finite_float
from cardigan.studio.lineage import add_parents, parent_facts
from cardigan.studio.run_series import RunSeries
from cardigan.studio.run_summary import RunSummary
from cardigan.studio.runs_folder import NotFound, RunsFolder, is_model_file
from cardigan.studio.score_kind import score_kind

MAX_CONFIG_BYTES = 1 << 20
MAX_SERIES_BYTES = 256 << 20
"""Memory limit of all cached series. The least recently used are dropped first."""
MAX_HEADER_BYTES = 16 << 20
MAX_PROCESSES = 100_000
MALFORMED_FILE_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)
"""Errors of reading a weights file that is damaged or of another kind."""


class RunReader:
    """Reads the runs of one folder and caches the results. Thread-safe."""

    def __init__(self, folder: RunsFolder) -> None:
        self.folder = folder
        self._run_summaries: dict[Path, RunSummary] = {}
        self._run_series: OrderedDict[Path, RunSeries] = OrderedDict()
        self._configs: dict[Path, tuple[tuple[int, int, int], Config, dict[str, Any]]] = {}
        self._lock = threading.Lock()  # protects the dicts; never held while a file is read

    def summaries(self) -> list[dict[str, Any]]:
        """Return the summaries of all runs, the most recently changed first."""
        summaries = [self._summary_or_error(run_id) for run_id in self.folder.runs()]
        with self._lock:
            present = {self.folder.path / entry["id"] for entry in summaries}
            for deleted in self._run_summaries.keys() - present:
                del self._run_summaries[deleted]
            for deleted in self._configs.keys() - present:
                del self._configs[deleted]
        add_parents(summaries)
        return sorted(summaries, key=lambda entry: -entry["modified_at"])

    def summary(self, run_id: str) -> dict[str, Any]:
        """Return one run's summary. Raises NotFound."""
        self.folder.run(run_id)
        return self._summary_or_error(run_id)

    def details(self, run_id: str) -> dict[str, Any]:
        """Return the summary and everything else that the page shows of a run.

        Raises NotFound, and CardiganError if the run is unreadable.
        """
        run = self.folder.run(run_id)
        # read the offset first: an event in the meantime is then sent twice rather than never
        offset = 0 if is_model_file(run) else self.run_summary(run).offset
        summary, config = self.summary(run_id), self.config(run)
        classes, names = class_info(run, config)
        available = checkpoint_images_seen(run)
        scores = {} if is_model_file(run) else dict(self.run_summary(run).scores)
        # an untrained network is not the best of anything
        trained = [images_seen for images_seen in available if images_seen > 0 and images_seen in scores]
        best_score = min((scores[images_seen] for images_seen in trained), default=None)
        return {
            **summary,
            "settings": flatten(config),
            "classes": classes,
            "class_names": names,
            "latent_size": config.latent.size,
            "latent_distribution": config.latent.distribution,
            "layout": layout_json(self.layout(run, config), config),
            "sheets": sheet_images_seen(run),
            "checkpoints": [
                {
                    "images_seen": images_seen,
                    "score": scores.get(images_seen),
                    "best": images_seen in trained and scores[images_seen] == best_score,
                }
                for images_seen in available
            ],
            "has_discriminator": bool(available),
            "animation_formats": ["webp", "gif", *(["mp4"] if find_spec("imageio_ffmpeg") else [])],
            "offset": offset,
            "old_fraction": OLD_FRACTION,
            "state_sentence": "" if is_model_file(run) else state_sentence(summary["state"], summary["reason"]),
            "resume_command": None if is_model_file(run) else self._resume_command(run, config, summary),
            **self._origin(run),
        }

    def _origin(self, run: RunDirectory) -> dict[str, Any]:
        """Return where a run comes from, and its evaluation: the command, the environment, `report.json`."""
        provenance = self.provenance(run)
        command, processes = training_command(provenance), provenance.get("num_processes")
        return {
            "command": shlex.join(["cardigan", *command[1:]]) if command else "",
            "environment": {
                str(name): value if isinstance(value, str) else json.dumps(value)
                for name, value in provenance.items()
                if name not in {"command", "parent"}
            },
            "num_processes": processes if isinstance(processes, int) and 1 <= processes <= MAX_PROCESSES else 1,
            "evaluation": None if is_model_file(run) else read_evaluation(run),
            "has_report": not is_model_file(run) and (run.path / "report.html").is_file(),
        }

    def _resume_command(self, run: RunDirectory, config: Config, summary: dict[str, Any]) -> str | None:
        if summary["state"] in {"training", "unreadable"}:
            return None
        command = training_command(self.provenance(run))
        return resume_command(run.path, command, config, summary["images_seen"], summary["reason"])

    def config(self, run: RunDirectory) -> Config:
        """Return the run's config. Raises CardiganError if it is damaged, NotFound if the run was deleted."""
        return self._config_and_provenance(run)[0]

    def provenance(self, run: RunDirectory) -> dict[str, Any]:
        """Return what `config.json` holds about the run's origin, {} for a model file. Raises as `config`."""
        return self._config_and_provenance(run)[1]

    def _config_and_provenance(self, run: RunDirectory) -> tuple[Config, dict[str, Any]]:
        if is_model_file(run):
            return _model_config(run), {}
        path = self.folder.file(run, run.config, "config.json")
        try:
            file_stat = path.stat()
        except OSError as error:
            raise NotFound(f"The run {run.path.name!r} was deleted.") from error
        if file_stat.st_size > MAX_CONFIG_BYTES:
            raise CardiganError(
                f"{path} has {file_stat.st_size:,} bytes, which is too large for a Cardigan config: restore a backup."
            )
        version = (file_stat.st_ino, file_stat.st_size, file_stat.st_mtime_ns)
        with self._lock:
            cached = self._configs.get(run.path)
        if cached and cached[0] == version:
            return cached[1:]
        try:
            content = read_config_json(run)
            config, provenance = from_dict(content["config"]), content.get("provenance")
        except (RecursionError, OverflowError) as error:
            raise CardiganError(f"{path} is damaged: restore it from a backup.") from error
        provenance = provenance if isinstance(provenance, dict) else {}
        with self._lock:
            self._configs[run.path] = (version, config, provenance)
        return config, provenance

    def run_summary(self, run: RunDirectory) -> RunSummary:
        """Return the up-to-date summary of the run's journal."""
        with self._lock:
            run_summary = self._run_summaries.setdefault(run.path, RunSummary(run.journal))
        with run_summary.lock:
            run_summary.update()
        return run_summary

    def run_series(self, run: RunDirectory) -> RunSeries:
        """Return the up-to-date series of the run's journal."""
        with self._lock:
            run_series = self._run_series.pop(run.path, None) or RunSeries(run.journal)
            self._run_series[run.path] = run_series
        with run_series.lock:
            run_series.update()
        with self._lock:
            while (
                len(self._run_series) > 1
                and sum(cached.num_bytes for cached in self._run_series.values()) > MAX_SERIES_BYTES
            ):
                self._run_series.popitem(last=False)
        return run_series

    def layout(self, run: RunDirectory, config: Config) -> GridLayout:
        """Return the layout of the run's sample sheets."""
        if is_model_file(run):
            return GridLayout(16, config.data.height, config.data.width)
        return GridLayout(
            self.run_summary(run).num_samples or min(config.batch_size, 64), config.data.height, config.data.width
        )

    def _summary_or_error(self, run_id: str) -> dict[str, Any]:
        path = self.folder.path / run_id
        run = RunDirectory(path)
        defaults = _empty_summary(run_id, path.name if run_id != "." else self.folder.path.name, run)
        try:
            self.folder.run(run_id)
            journal = _model_summary(run) if is_model_file(run) else self._journal_summary(run)
            return {
                **defaults,
                **_config_summary(self.config(run)),
                **journal,
                **({} if is_model_file(run) else asdict(read_annotations(run))),
                "started_from": parent_facts(self.provenance(run)),
                "error": None,
            }
        except (CardiganError, OSError) as error:
            return {**defaults, "state": "unreadable", "error": str(error)}

    def _journal_summary(self, run: RunDirectory) -> dict[str, Any]:
        run_summary = self.run_summary(run)
        with run_summary.lock:
            scores, faults, last_event = run_summary.scores, run_summary.faults, run_summary.last_event
            # an untrained network is not the best of anything
            best = min((pair for pair in scores if pair[0] > 0), key=lambda pair: pair[1], default=None)
            state, reason = run_state(last_event, is_locked(run))
            health = run_summary.health
            return {
                "state": state,
                "reason": reason,
                "images_seen": last_event.images_seen if last_event else 0,
                "elapsed_seconds": last_event.elapsed_seconds if last_event else 0.0,
                "images_per_second": run_summary.images_per_second,
                "latest_score": scores[-1][1] if scores else None,
                "best_score": best[1] if best else None,
                "best_score_images_seen": best[0] if best else None,
                "health": health.state.replace(" ", "_"),
                "health_sentence": health.sentence,
                "fault_names": list(dict.fromkeys(fault.name for fault in faults)),
                "latest_sheet": run_summary.latest_sheet,
            }


def _empty_summary(run_id: str, name: str, run: RunDirectory) -> dict[str, Any]:
    """Return the summary of a run of which only the path is known."""
    modified_at = _modified_time(run.journal) or _modified_time(run.config) or _modified_time(run.path)
    return {
        **{
            "id": run_id,
            "name": name,
            "state": "unreadable",
            "reason": None,
            "recipe": "",
            "source": "",
            "images_seen": 0,
            "images_goal": None,
        },
        **{
            "minutes_goal": None,
            "elapsed_seconds": 0.0,
            "images_per_second": None,
            "latest_score": None,
            "best_score": None,
            "best_score_images_seen": None,
        },
        **{
            "health": "unknown",
            "health_sentence": "",
            "fault_names": [],
            "started_at": _modified_time(run.path / "lock") or _modified_time(run.config),
            "modified_at": modified_at,
        },
        **{"latest_sheet": None, "conditional": False, "size": "", "error": None, "score_kind": ""},
        **{"title": "", "starred": False, "note": "", "started_from": None},
    }


def _config_summary(config: Config) -> dict[str, Any]:
    data = config.data
    return {
        **{
            "recipe": config.recipe,
            "source": data.source,
            "images_goal": config.images,
            "minutes_goal": config.minutes,
        },
        **{"conditional": config.conditional, "size": f"{data.height}x{data.width}x{data.channels}"},
        "score_kind": score_kind(config),
    }


def read_evaluation(run: RunDirectory) -> dict[str, Any] | None:
    """Return the content of `report.json`, None if there is none or it is damaged."""
    try:
        if run.report.stat().st_size > MAX_CONFIG_BYTES:
            return None
        content = json.loads(run.report.read_bytes(), parse_constant=lambda _: None, parse_float=parse_finite_float)
    except (OSError, ValueError, RecursionError):
        return None
    is_valid = isinstance(content, dict) and isinstance(content.get("metrics"), list)
    return content if is_valid and all(isinstance(metric, dict) for metric in content["metrics"]) else None


def training_command(provenance: Mapping[str, Any]) -> list[str]:
    """Return the words of the command that started the run, [] if they are unknown."""
    command = provenance.get("command")
    return [str(word) for word in command] if isinstance(command, list) else []


def _modified_time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def sheet_images_seen(run: RunDirectory) -> list[int]:
    """Return the images_seen of all sample sheets, sorted."""
    return sorted(int(path.stem) for path in run.samples.glob("[0-9]*.png") if re.fullmatch("[0-9]+", path.stem))


def checkpoint_images_seen(run: RunDirectory) -> list[int]:
    """Return the images_seen of all checkpoints, sorted."""
    return sorted(
        int(path.parent.name)
        for path in run.checkpoints.glob("[0-9]*/state.safetensors")
        if re.fullmatch("[0-9]+", path.parent.name)
    )


def class_info(run: RunDirectory, config: Config) -> tuple[int, list[str]]:
    """Return the number of classes and the class names, from the header of the generator's file."""
    if not config.conditional:
        return 0, []
    try:
        header = _weights_header(run.path if is_model_file(run) else run.generator)
        return int(header["num_classes"]), [str(name) for name in header.get("class_names", [])]
    except MALFORMED_FILE_ERRORS:
        return 0, []  # no checkpoint yet, or a damaged one, which loading the model will report


def _weights_header(path: Path) -> dict[str, Any]:
    """Return Cardigan's metadata from the header of a weights file."""
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(header_size, MAX_HEADER_BYTES)))
    return json.loads(header["__metadata__"]["cardigan"])


def _model_config(run: RunDirectory) -> Config:
    try:
        return from_dict(_weights_header(run.path)["config"])
    except MALFORMED_FILE_ERRORS as error:
        raise CardiganError(
            f"{run.path} is not a Cardigan model, or is damaged: replace it with an intact copy."
        ) from error


def _model_summary(run: RunDirectory) -> dict[str, Any]:
    try:
        return {"state": "model_file", "images_seen": int(_weights_header(run.path)["images_seen"])}
    except MALFORMED_FILE_ERRORS as error:
        raise CardiganError(f"{run.path} is damaged: replace it with an intact copy.") from error


def layout_json(layout: GridLayout, config: Config) -> dict[str, int]:
    """Return the layout of a sheet's tiles, in pixels."""
    channels = config.data.channels
    return {
        **{
            "count": layout.num_images,
            "columns": layout.columns,
            "rows": layout.rows,
            "width": layout.width,
            "height": layout.height,
        },
        **{
            "channels": channels if channels in {1, 3, 4} else 1,
            "gap": GAP,
            "divider": DIVIDER,
            "real_left": layout.real_left,
        },
    }
