"""MLflow: a real server on this machine, asked over HTTP what it has."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from cardigan.trackers.mlflow import _without_password
from tracked_runs import FIRST_EVENTS, LATER_EVENTS, SCALARS, add_events, command, track, tracked_run

pytest.importorskip("flask_cors", reason="pip install 'cardigan[mlflow]'")  # mlflow itself takes seconds to import


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    with (
        (folder / "log.txt").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words, *stores], cwd=folder, stdout=log, stderr=log
        ) as process,
    ):
        address = f"http://127.0.0.1:{port}"
        try:
            wait_until_ready(f"{address}/health", process, folder / "log.txt")
            yield address
        finally:
            process.terminate()


def wait_until_ready(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=10).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text()[-2000:])


def ask(server: str, method: str, **values: str) -> Any:
    with urllib.request.urlopen(f"{server}/api/2.0/mlflow/{method}?{urlencode(values)}", timeout=60) as answer:
        return json.load(answer)


def timestamp(metric: dict[str, Any]) -> int:
    return int(metric["timestamp"])


def search(server: str, experiment: str) -> list[Any]:
    experiment_id = ask(server, "experiments/get-by-name", experiment_name=experiment)["experiment"]["experiment_id"]
    body = json.dumps({"experiment_ids": [experiment_id]}).encode()
    request = urllib.request.Request(f"{server}/api/2.0/mlflow/runs/search", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["runs"]


def test_run_is_sent_once_and_a_resumed_run_continues_its_line(tmp_path, server):
    run = tracked_run(tmp_path / "run", *FIRST_EVENTS)
    place = track(run, "mlflow", "--track-project", "digits", MLFLOW_TRACKING_URI=server)
    content = json.loads((run / "config.json").read_text())
    content["config"]["minutes"] = 5.0  # the resumed training has another budget
    (run / "config.json").write_text(json.dumps(content))
    add_events(run, *LATER_EVENTS)
    assert track(run, "mlflow", "--track-project", "digits", MLFLOW_TRACKING_URI=server) == place
    (found,) = search(server, "digits")
    run_id, tags = found["info"]["run_id"], {tag["key"]: tag["value"] for tag in found["data"]["tags"]}
    assert place.strip().endswith(f"/runs/{run_id}")
    assert (found["info"]["run_name"], found["info"]["status"]) == ("run", "FINISHED")
    losses = ask(server, "metrics/get-history", run_id=run_id, metric_key="generator_loss")["metrics"]
    training_start = min(map(timestamp, losses)) - 1_000
    assert abs(training_start - found["info"]["start_time"]) <= 1  # not when it was sent
    for name, points in SCALARS.items():
        history = ask(server, "metrics/get-history", run_id=run_id, metric_key=name)["metrics"]
        assert [(int(point.get("step", 0)), point["value"]) for point in history] == points
    settings = {param["key"]: param["value"] for param in found["data"]["params"]}
    assert settings["generator.width"] == "8" and settings["minutes"] == "null"
    assert tags["resumed.minutes"] == "5.0"
    assert tags["fault.plateau"] == "at 64 images: no progress. Stop it."
    assert tags["stop.00000096"] == "at 96 images: stopped by images"
    files = [file["path"] for file in ask(server, "artifacts/list", run_id=run_id)["files"]]
    assert "generator.safetensors" in files
    images = [file["path"] for file in ask(server, "artifacts/list", run_id=run_id, path="images")["files"]]
    (sheet,) = (name for name in images if name.endswith(".png"))
    assert re.match(r"images/samples\Wstep\W32\W", sheet)


def test_server_that_is_away_is_one_sentence(tmp_path):
    run = tracked_run(tmp_path / "run", *FIRST_EVENTS)
    away = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    done = command("-m", "cardigan", "track", str(run), "--to", "mlflow", folder=tmp_path, **away)
    assert done.returncode == 2
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("cardigan: mlflow failed (MlflowException: ") and sentence.endswith("is missing.")


@pytest.mark.parametrize(
    ("uri", "kept"),
    [
        ("http://me:secret@host:5000/x", "http://host:5000/x"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:////a/b@c.db", "sqlite:////a/b@c.db"),
    ],
)
def test_passwords_are_not_kept(uri, kept):
    assert _without_password(uri) == kept
