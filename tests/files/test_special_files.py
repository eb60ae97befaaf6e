"""A named pipe in place of any file that a command reads is refused, and nothing waits for it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardigan.cli.main import run
from tiny_runs import small_run, small_snapshot

SECONDS = 60


@pytest.fixture(autouse=True)
def time_limit() -> Iterator[None]:
    """End a call that waits for a named pipe."""

    def interrupt(*_: object) -> None:
        raise AssertionError(f"waited more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    small_run(tmp_path / "run", small_snapshot())
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.fromarray(np.full((8, 8), 50 * number, np.uint8)).save(tmp_path / "images" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CARDIGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path


def named_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


@pytest.mark.parametrize("command", ["check", "info", "sample", "train"])
@pytest.mark.parametrize("name", ["p", "p.png", "p.zip", "p.safetensors"])
def test_source_or_model(folder, capsys, command, name):
    named_pipe(folder / name)
    before = sorted(folder.rglob("*"))
    assert run([command, name]) == 2
    assert f"{name}' is a named pipe: expected a file or a folder" in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("info", "generator.safetensors"),
        ("sample", "checkpoints/00000032/state.safetensors"),
        ("info", "model.safetensors"),
        ("report", "config.json"),
        ("info", "journal.jsonl"),
    ],
)
def test_file_of_a_run(folder, capsys, command, name):
    if "checkpoints" in name or name.startswith("model"):
        (folder / "run" / "generator.safetensors").unlink()
    named_pipe(folder / "run" / name)
    assert run([command, "run"]) == 2
    assert f"{name}' is a named pipe: expected a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["invert", "run", "p.png"], "p.png"),
        (["train", "mnist", "--config", "p.json"], "p.json"),
        (["check", "images", "--labels", "p.csv"], "p.csv"),
        (["check", "images", "--labels", "p.csv:label"], "p.csv"),
        (["check", "tables"], "tables/1.parquet"),
        (["check", "archive"], "archive/1.zip"),
        (["diagnose", "p.csv"], "p.csv"),
        (["diagnose", "p.csv.gz"], "p.csv.gz"),
        (["diagnose", "p.jsonl"], "p.jsonl"),
        (["serve", "p.onnx", "--backend", "onnx"], "p.onnx"),
    ],
)
def test_other_input(folder, capsys, words, name):
    named_pipe(folder / name)
    assert run(words) == 2
    assert f"{name}' is a named pipe: expected a file" in capsys.readouterr().err
    assert not (folder / "runs").exists()


def test_weights_of_an_extractor(folder, capsys):
    named_pipe(folder / "p.safetensors")
    assert run(["evaluate", "run", "--extractor", "inception", "--weights", "p.safetensors"]) == 2
    assert "p.safetensors is not a file" in capsys.readouterr().err
