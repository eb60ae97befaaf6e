"""Trackio: its local store, or the Space or server that its own environment variables name."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cardigan.trackers.interface import Message, Moment, SettingValue, TrackedRun, Tracker


def trackio_destination(run: Path) -> str:
    server = os.environ.get("TRACKIO_SERVER_URL", "")
    return os.environ.get("TRACKIO_SPACE_ID") or urlsplit(server).hostname or str(_import_trackio().utils.TRACKIO_DIR)


def open_trackio(run: TrackedRun) -> Tracker:
    return Trackio(_import_trackio(), run)


class Trackio(Tracker):
    """A run in a Trackio project. Its steps are images seen; its times are those of sending."""

    def __init__(self, trackio: Any, run: TrackedRun) -> None:
        self._trackio = trackio
        self.run_id = run.run_id or _free_name(trackio, run)
        self._run = trackio.init(
            project=run.project,
            name=self.run_id,
            resume="never" if run.run_id is None else "allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        self.where = shlex.join(["trackio", "show", "--project", run.project])

    def send_settings(self, settings: Mapping[str, SettingValue]) -> None:
        """Send them with the next scalars, which is how Trackio takes them."""
        self._run.config.update(settings)
        self._run._config_logged = False

    def send_scalars(self, moment: Moment, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=moment.images_seen)

    def send_image(self, moment: Moment, name: str, path: Path, caption: str) -> None:
        self._run.log({name: self._trackio.Image(str(path), caption=caption)}, step=moment.images_seen)

    def send_message(self, moment: Moment, message: Message) -> None:
        level = self._trackio.AlertLevel.WARN if message.is_alert else self._trackio.AlertLevel.INFO
        self._run.alert(message.title, message.text or None, level, step=moment.images_seen)

    def send_file(self, path: Path) -> None:
        self._run.log_artifact(str(path), name=f"{self.run_id}-{path.name}", type=path.suffix[1:])

    def rewind(self, moment: Moment) -> None:
        """Trackio keeps what was logged; the line goes back to this step and continues."""

    def flush(self) -> None:
        """Trackio's own thread writes what it has; `close` waits for it."""

    def close(self, state: str) -> None:
        self._trackio.finish()


def _free_name(trackio: Any, run: TrackedRun) -> str:
    """Return the run's name, with a number if the project has a run of that name: Trackio continues runs by name."""
    try:
        known = {each.name for each in trackio.Api().runs(run.project)}
    except ValueError:  # there is no such project yet
        return run.name
    return next(name for name in (run.name, *(f"{run.name}-{k}" for k in range(2, 10_000))) if name not in known)


def _import_trackio() -> Any:
    import trackio  # pyright: ignore[reportMissingImports]

    return trackio
