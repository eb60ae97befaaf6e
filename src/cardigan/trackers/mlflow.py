"""MLflow: its own client, for a server (MLFLOW_TRACKING_URI) or a local store."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from cardigan.trackers.interface import Message, Moment, SettingValue, TrackedRun, Tracker

MAX_PARAMS, MAX_METRICS = 100, 1000
"""Limits of one request."""
MAX_TAG_LENGTH = 5000
STATUS = {"finished": "FINISHED", "stopped": "KILLED", "interrupted": "FAILED"}
"""MLflow's word for each state. All other states are its RUNNING."""


def mlflow_destination(run: Path) -> str:
    return _without_password(_import_mlflow().get_tracking_uri())


def open_mlflow(run: TrackedRun) -> Tracker:
    return Mlflow(_import_mlflow(), run)


class Mlflow(Tracker):
    """A run in an MLflow experiment that has the project's name. Its steps are images seen."""

    def __init__(self, mlflow: Any, run: TrackedRun) -> None:
        self._mlflow, self._client = mlflow, mlflow.MlflowClient()
        self._metrics: list[Any] = []
        experiment = self._client.get_experiment_by_name(run.project)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(run.project)
        if run.run_id is None:
            started = int(1000 * run.started_at)
            self.run_id = self._client.create_run(experiment_id, started, run_name=run.name).info.run_id
        else:
            self.run_id = run.run_id
            self._client.update_run(self.run_id, status="RUNNING")
        uri = _without_password(mlflow.get_tracking_uri())
        self.where = (
            f"{uri}/#/experiments/{experiment_id}/runs/{self.run_id}"
            if uri.startswith("http")
            else shlex.join(["mlflow", "ui", "--backend-store-uri", uri])
        )

    def send_settings(self, settings: Mapping[str, SettingValue]) -> None:
        """Send parameters. MLflow never changes one, so settings that a resume has changed become tags."""
        known = self._client.get_run(self.run_id).data.params
        new = [self._mlflow.entities.Param(name, str(value)) for name, value in settings.items() if name not in known]
        for start in range(0, len(new), MAX_PARAMS):
            self._client.log_batch(self.run_id, params=new[start : start + MAX_PARAMS])
        for name, value in settings.items():
            if known.get(name, str(value)) != str(value):
                self._client.set_tag(self.run_id, f"resumed.{name}", str(value))

    def send_scalars(self, moment: Moment, scalars: Mapping[str, float]) -> None:
        milliseconds = int(1000 * moment.unix_seconds)
        self._metrics += [
            self._mlflow.entities.Metric(name, value, milliseconds, moment.images_seen)
            for name, value in scalars.items()
        ]
        if len(self._metrics) >= MAX_METRICS:
            self.flush()

    def send_image(self, moment: Moment, name: str, path: Path, caption: str) -> None:
        with Image.open(path) as image:
            self._client.log_image(
                self.run_id,
                image,
                key=name,
                step=moment.images_seen,
                timestamp=int(1000 * moment.unix_seconds),
                synchronous=True,
            )
        self._client.set_tag(self.run_id, name, caption)

    def send_message(self, moment: Moment, message: Message) -> None:
        """Send a tag. MLflow has no log of messages."""
        name = f"{message.kind}.{message.title}" if message.is_alert else f"{message.kind}.{moment.images_seen:08d}"
        text = message.text or message.title
        self._client.set_tag(self.run_id, name, f"at {moment.images_seen:,} images: {text}"[:MAX_TAG_LENGTH])

    def send_file(self, path: Path) -> None:
        self._client.log_artifact(self.run_id, str(path))

    def rewind(self, moment: Moment) -> None:
        """MLflow keeps what was logged; the line goes back to this step and continues."""

    def flush(self) -> None:
        while self._metrics:
            self._client.log_batch(self.run_id, metrics=self._metrics[:MAX_METRICS])
            del self._metrics[:MAX_METRICS]

    def close(self, state: str) -> None:
        if state in STATUS:
            self._client.set_terminated(self.run_id, STATUS[state])


def _without_password(uri: str) -> str:
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.username else uri


def _import_mlflow() -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # its reports to its makers
    import mlflow  # pyright: ignore[reportMissingImports]

    return mlflow
