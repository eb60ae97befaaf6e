"""The live screen, `info` and the last words of a command: what they show of a run, and what they must not."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from cardigan.cli import main as cli
from cardigan.cli.info import describe_path
from cardigan.cli.info import main as info
from cardigan.cli.progress import ProgressScreen
from cardigan.cli.terminal_images import MIN_PREVIEW_ROWS
from cardigan.config import Config
from cardigan.figures.grid import png_bytes, side_by_side
from cardigan.run.journal import Event, Journal
from cardigan.run.stopping import resume_command
from tiny_runs import small_run, small_snapshot

METRICS = {
    "images_per_second": 100.0,
    "discriminator_loss": 0.6,
    "generator_loss": 0.9,
    "d_real": 0.6,
    "d_fake": 0.4,
    "d_fake_after_update": 0.3,
    "augment_probability": 0.1,
}


def screen_text(run, events: list[Event], width: int = 80, height: int = 30) -> str:
    console = Console(
        width=width,
        height=height,
        force_terminal=True,
        no_color=True,
        color_system=None,
        record=True,
        file=io.StringIO(),
    )
    screen = ProgressScreen(Config(images=100_000), console)
    screen.run = run
    for event in events:
        rendered = screen.update(event)
    console.print(rendered)
    return console.export_text()


@pytest.fixture
def run(tmp_path):
    """A run directory whose sample sheet has white images."""
    path = small_run(tmp_path / "run", small_snapshot())
    images = torch.full((64, 1, 32, 32), 255, dtype=torch.uint8)
    (path / "samples" / "00001920.png").write_bytes(png_bytes(side_by_side(images, images)))
    (path / "journal.jsonl").unlink()
    return path


LONG_NOTE = "the networks were computed in bf16 so far and are computed in fp32 from here on: " + "other bits " * 20
SAMPLES = Event("samples", 1920, 2.0, {"file": "samples/00001920.png", "num_samples": 64})


@pytest.mark.parametrize("notes", [0, 1, 3])
def test_small_screen_shows_two_labelled_rows_of_samples(run, notes):
    events = [Event("note", 64, 1.0, {"messages": [LONG_NOTE] * notes}), Event("progress", 1920, 2.0, METRICS), SAMPLES]
    lines = screen_text(run, events).rstrip().splitlines()
    (label,) = [line for line in lines if line.startswith("generated")]
    assert "after 1,920 images" in label and label.endswith("real")
    image_lines = [line for line in lines[lines.index(label) + 1 :] if line.strip()]
    assert len(image_lines) >= MIN_PREVIEW_ROWS - 1  # two rows of images, each at least 8 pixels high
    assert len(lines) <= 30


def test_untrained_network_is_not_the_best(run):
    first = Event("checkpoint", 0, 1.0, {"score": 915.0, "score_standard_error": 3.0})
    assert "best so far" not in screen_text(run, [first])
    text = screen_text(run, [first, Event("checkpoint", 1920, 1.0, {"score": 950.0}), Event("progress", 9000, 9.0, {})])
    assert "best so far" in text and "at 1,920 images, old" in text


def test_screen_says_until_when_it_is_too_early(run):
    text = screen_text(run, [Event("progress", 1920, 2.0, {**METRICS, "diversity": 0.6, "duplicate_rate": 0.45})])
    assert "Too early to say after 1,920 images: known from 20,000 images on." in text


def test_control_characters_are_not_printed(tmp_path, capsys):
    path = small_run(tmp_path / "run\x1b[31m\x07", small_snapshot())
    assert info([str(path)]) == 0
    assert cli.run(["info", str(path / "no\x1b[2J")]) == 2
    printed = capsys.readouterr()
    for text in (printed.out, printed.err, screen_text(path, [Event("progress", 64, 1.0, METRICS)])):
        assert "\\x1b" in text
        assert not {"\x1b", "\x07"} & set(text)


def write_journal(run, events: list[Event]) -> None:
    journal = Journal(run / "journal.jsonl")
    for event in events:
        journal.append(event)


def test_info_of_killed_run(run, capsys):
    """It was killed before its first checkpoint, so its generator is still the untrained one."""
    write_journal(
        run,
        [
            Event("start", 0, 0.0, {}),
            Event("checkpoint", 0, 1.0, {"score": 915.0}),
            Event("progress", 640, 2.0, {"holdout_gap": 0.2, "discriminator_loss": 1.5}),
            Event("progress", 1920, 3.0, {"discriminator_loss": 1.25}),
        ],
    )
    found = describe_path(run)
    assert (found["images_seen"], found["generator_images_seen"]) == (1920, 32)
    assert found["state"].startswith("Interrupted")
    assert found["health"]["state"] == "too early" and found["health"]["known_at"] == 20_000
    assert found["latest"]["holdout_gap"] == {"value": 0.2, "images_seen": 640, "old": True}
    assert found["latest"]["discriminator_loss"] == {"value": 1.25, "images_seen": 1920, "old": False}
    assert found["best_checkpoint"] is None
    assert info([str(run)]) == 0
    text = capsys.readouterr().out
    assert "0.2 (at 640 images, old)" in text and "1.25 (at 1,920 images)" in text and "resume" in text


@pytest.mark.parametrize(
    ("command", "reason", "expected"),
    [
        (["cardigan", "train", "mnist", "--images", "960"], "images",
         "train mnist --out 'my run' --resume --images 1920"),
        (["/bin/cardigan", "train", "mnist", "--images=960", "--out=x", "--seed", "3", "--resume"], None,
         "train mnist --seed 3 --out 'my run' --resume --images 960"),
        (["script.py"], "images", "out='my run' and resume=True"),
    ],
)  # fmt: skip
def test_command_that_continues_a_run(tmp_path, command, reason, expected):
    assert resume_command(Path("my run"), command, Config(images=960), 960, reason).endswith(expected)


@pytest.mark.parametrize(
    "error", [ImportError("libtorch_cpu.so: failed to map segment from shared object"), MemoryError()]
)
def test_out_of_memory_is_one_sentence(monkeypatch, capsys, error):
    def command(argv):
        raise error

    monkeypatch.setitem(cli.COMMANDS, "info", (command, ""))
    assert cli.run(["info"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cardigan: The memory of this process is used up") and "ulimit -v" in line


@pytest.mark.skipif(os.name != "posix", reason="needs limits of processes")
@pytest.mark.parametrize("megabytes", [150, 400, 500, 600])
def test_too_small_an_address_space_is_one_sentence(tmp_path, megabytes):
    """Importing PyTorch into 350 to 650 MB aborts the process, in ways that nobody can catch."""
    words = f"ulimit -v {megabytes * 1000}; exec {sys.executable} -m cardigan info {tmp_path}"
    process = subprocess.run(["/bin/sh", "-c", words], capture_output=True, text=True, timeout=60)  # noqa: PLW1510
    assert process.returncode == 2
    (line,) = process.stderr.splitlines()
    assert line.startswith("cardigan: The address space of this process is limited to") and "ulimit -v" in line


def test_other_errors_keep_their_traceback(monkeypatch):
    def command(argv):
        raise RuntimeError("a defect of ours")

    monkeypatch.setitem(cli.COMMANDS, "info", (command, ""))
    with pytest.raises(RuntimeError, match="defect"):
        cli.run(["info"])
