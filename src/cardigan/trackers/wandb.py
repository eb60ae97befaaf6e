"""Weights & Biases: its own client, configured by its own environment variables (WANDB_MODE, WANDB_API_KEY)."""

import os
import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cardigan.errors import CardiganError
from cardigan.trackers.interface import Message, Moment, SettingValue, TrackedRun, Tracker

X_AXIS = "images_seen"


def wandb_destination(run: Path) -> str:
    settings = _import_wandb().setup().settings
    return "offline" if settings.mode != "online" else f"{urlsplit(settings.base_url).hostname}"


def open_wandb(run: TrackedRun) -> Tracker:
    wandb = _import_wandb()
    try:
        return Wandb(wandb, run)
    except wandb.errors.UsageError as error:
        raise CardiganError(
            "wandb has no API key: run `wandb login`, or set WANDB_MODE=offline to write the run to files."
        ) from error


class Wandb(Tracker):
    """A run in Weights & Biases. Its x axis is `images_seen`.

    wandb's own step only ever grows, and it ignores points before it. So it is the number of the event, which also
    grows when the run goes back, and over the sessions of a run that is written offline.
    """

    def __init__(self, wandb: Any, run: TrackedRun) -> None:
        # wandb never asks for a login here: without a terminal at its input it raises UsageError
        settings = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False)
        self._wandb = wandb
        self.run_id = run.run_id or secrets.token_hex(4)
        self._run = wandb.init(
            project=run.project, id=self.run_id, name=run.name, resume="allow", settings=settings, force=True
        )
        self._run.define_metric(X_AXIS, hidden=True)
        self._run.define_metric("*", step_metric=X_AXIS)
        self.where = self._run.url or shlex.join(["wandb", "sync", str(Path(self._run.dir).parent)])

    def send_settings(self, settings: Mapping[str, SettingValue]) -> None:
        self._run.config.update(dict(settings), allow_val_change=True)

    def send_scalars(self, moment: Moment, scalars: Mapping[str, float]) -> None:
        self._log(moment, dict(scalars))

    def send_image(self, moment: Moment, name: str, path: Path, caption: str) -> None:
        self._log(moment, {name: self._wandb.Image(str(path), caption=caption)})

    def send_message(self, moment: Moment, message: Message) -> None:
        text = f"{message.title}: {message.text}" if message.text else message.title
        self._log(moment, {message.kind: text})
        if message.is_alert:
            self._run.tags = tuple(dict.fromkeys([*(self._run.tags or ()), message.title]))
            self._run.alert(message.title, f"{text} ({moment.images_seen:,} images)", level="WARN")

    def _log(self, moment: Moment, values: dict[str, Any]) -> None:
        self._run.log({X_AXIS: moment.images_seen, **values}, step=moment.event_number)

    def send_file(self, path: Path) -> None:
        artifact = self._wandb.Artifact(f"{self.run_id}-{path.name}", type="model" if _is_model(path) else "report")
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def rewind(self, moment: Moment) -> None:
        """Weights & Biases keeps what was logged; the line goes back to this x value and continues."""

    def flush(self) -> None:
        """wandb's own process has everything, and writes or sends it."""

    def close(self, state: str) -> None:
        self._run.finish(exit_code=1 if state == "interrupted" else 0)


def _is_model(path: Path) -> bool:
    return path.suffix == ".safetensors"


def _import_wandb() -> Any:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # wandb's own reports about its failures
    import wandb

    return wandb
