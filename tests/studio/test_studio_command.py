"""The commands `cardigan studio` and `cardigan train --studio`."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib import util

import pytest
from fake_runs import make_run, progress_line

from cardigan.cli.main import run as cardigan_command
from cardigan.cli.train import _closing_text
from cardigan.config import Config
from cardigan.experiment.finished_run import Run
from cardigan.run.journal import read_events

SMALL = [
    "--batch-size",
    "16",
    "--generator.width",
    "8",
    "--discriminator.width",
    "8",
    "--device",
    "cpu",
    "--no-conditional",
]


def start_command(*words, **settings):
    return subprocess.Popen(
        [sys.executable, "-m", "cardigan", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )


def get(address):
    with urllib.request.urlopen(address, timeout=10) as answer:
        return json.loads(answer.read())


def first_response(address):
    """Return the first response of a server that was just started."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return get(address)
        except urllib.error.URLError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_studio_prints_url_and_stops_on_ctrl_c(tmp_path):
    make_run(tmp_path / "run", [progress_line(64)])
    studio = start_command("studio", str(tmp_path), "--no-open", "--port", "0", "--run", "run")
    first = studio.stdout.readline()
    address = re.search(r"http://127\.0\.0\.1:\d+/", first)[0]
    assert first.rstrip().endswith("#/run/run/live")
    assert first_response(address + "api/runs")["runs"][0]["id"] == "run"
    studio.send_signal(signal.SIGINT)
    _, errors = studio.communicate(timeout=20)
    assert (studio.returncode, errors) == (0, "")


@pytest.mark.parametrize(("words", "sentence"), [
    (["nowhere"], "There is no folder nowhere"),
    (["--port", "70000"], "expected 0..65535"),
    (["--host", "203.0.113.7", "--port", "0"], "Cannot listen on 203.0.113.7"),
    (["--host", "127.0.0..1"], "Cannot listen on 127.0.0..1"),
])  # fmt: skip
def test_startup_error_is_one_line(tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert cardigan_command(["studio", *words, "--no-open"]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("words", [["studio"], ["train", "mnist", "--studio", "--images", "16"]])
def test_missing_packages_are_reported_first(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    find = util.find_spec
    monkeypatch.setattr("cardigan.cli.studio.find_spec", lambda name: None if name == "uvicorn" else find(name))
    assert cardigan_command(words) == 2
    assert "pip install 'cardigan[studio]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_help_imports_neither_torch_nor_server():
    packages = {"torch", "starlette", "uvicorn", "numpy"}
    code = "import sys; from cardigan.cli.main import run; run(['--help']); "
    code += f"print(sorted({packages} & set(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "studio" in output
    assert output.splitlines()[-1] == "[]"


def test_curves_do_not_import_torch(tmp_path):
    make_run(tmp_path / "run", [progress_line(64)], sheets=(0,))
    code = f"""
import sys
from pathlib import Path
from cardigan.studio.app import build_app
from cardigan.studio.runs_folder import open_runs_folder
from cardigan.http.endpoint import Endpoint
studio = build_app(open_runs_folder(Path({str(tmp_path)!r})), Endpoint("127.0.0.1", 1)).state.studio
studio.run_reader.summaries(), studio.run_reader.details("run")
print("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_printed_commands_are_shell_quoted(tmp_path, monkeypatch):
    provenance = {"command": ["cardigan", "train", "my photos", "--images", "64"]}
    monkeypatch.setattr("cardigan.run.directory.read_provenance", lambda run: provenance)
    run = Run(tmp_path / "my runs" / "a $(run)", Config(images=64), 64, "images")
    sample, resume, studio = (
        shlex.split(line, comments=True) for line in _closing_text(run, studio=True).splitlines()[-3:]
    )
    assert sample[1:4] == ["cardigan", "sample", str(run.path)]
    assert resume[1:] == ["cardigan", "train", "my photos", "--out", str(run.path), "--resume", "--images", "128"]
    assert studio[1:] == ["cardigan", "studio", str(run.path.parent), "--run", run.path.name]


@pytest.mark.skipif(os.name != "posix", reason="lists processes with ps")
def test_train_with_studio(tmp_path):
    out = tmp_path / "runs" / "run"
    training = start_command("train", "mnist", *SMALL, "--minutes", "5", "--out", str(out), "--studio")
    lines = []
    while not any("studio: " in line for line in lines):
        lines.append(training.stdout.readline())
        assert lines[-1], training.stderr.read()
    address = re.search(r"http://[\d.:]+/", lines[-1])[0]
    found = first_response(address + "api/runs")["runs"][0]
    assert (found["id"], found["state"]) == ("run", "training")
    children = subprocess.run(
        ["ps", "-o", "ni=,args=", "--ppid", str(training.pid)], capture_output=True, text=True, check=True
    ).stdout
    (studio,) = [line.split() for line in children.splitlines() if "cardigan.cli.studio_process" in line]
    assert int(studio[0]) >= 10
    training.send_signal(signal.SIGINT)
    output, errors = training.communicate(timeout=60)
    assert (training.returncode, errors) == (130, "")
    assert f"cardigan studio {out.parent} --run run" in output
    assert read_events(out / "journal.jsonl")[-1].values["reason"] == "SIGINT"
    with pytest.raises(urllib.error.URLError):
        get(address + "api/runs")


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_studio_stops_when_training_is_killed(tmp_path):
    training = start_command("train", "mnist", *SMALL, "--minutes", "5", "--out", str(tmp_path / "run"), "--studio")
    line = ""
    while "studio: " not in line:
        line = training.stdout.readline()
        assert line, training.stderr.read()
    address = re.search(r"http://[\d.:]+/", line)[0]
    first_response(address + "api/runs")
    training.kill()
    training.communicate(timeout=20)
    deadline = time.monotonic() + 20
    while True:
        try:
            get(address + "api/runs")
        except (urllib.error.URLError, ConnectionError):
            break
        assert time.monotonic() < deadline
        time.sleep(0.2)
