"""Killed and resumed runs end with the same bytes. Real processes, real `kill -9`."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cardigan
from cardigan.errors import CardiganError

SMALL = [
    "--images",
    "960",
    "--batch-size",
    "16",
    "--checkpoint-every-images",
    "96",
    "--sample-every-images",
    "480",
    "--generator.width",
    "8",
    "--discriminator.width",
    "8",
]


def command(out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "cardigan", "train", "mnist", *SMALL, "--out", str(out), *options]


def checkpoints(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").glob("[0-9]*"))


@pytest.fixture(scope="module")
def uninterrupted_run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    subprocess.run(command(out), check=True, capture_output=True)
    return out


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_and_resumed_run_is_byte_identical(uninterrupted_run, tmp_path, seed):
    """Each process is killed at a random time after it has passed the previous one: in a step, a save or sampling."""
    out, rng = tmp_path / "killed", random.Random(seed)
    for further_than in ("00000000", "00000192", "00000480"):
        process = subprocess.Popen(command(out, "--resume"), stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not any(name >= further_than for name in checkpoints(out)):
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        assert process.wait() in (-signal.SIGKILL, 0)
    subprocess.run(command(out, "--resume"), check=True, capture_output=True)
    assert (out / "generator.safetensors").read_bytes() == (uninterrupted_run / "generator.safetensors").read_bytes()


def test_damaged_checkpoint_falls_back(uninterrupted_run, tmp_path):
    out = tmp_path / "damaged"
    subprocess.run([*command(out), "--images", "480"], check=True, capture_output=True)
    state = out / "checkpoints" / checkpoints(out)[-1] / "state.safetensors"
    content = bytearray(state.read_bytes())
    content[-100] ^= 1
    state.write_bytes(content)
    resumed = subprocess.run(command(out, "--resume"), check=True, capture_output=True, text=True)
    assert "is damaged (its checksum differs)" in resumed.stdout
    assert (out / "generator.safetensors").read_bytes() == (uninterrupted_run / "generator.safetensors").read_bytes()


@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_exit(tmp_path, signal_number, code):
    out = tmp_path / "run"
    process = subprocess.Popen([*command(out), "--images", "1000000"], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and "00000096" not in checkpoints(out):
        time.sleep(0.05)
    process.send_signal(signal_number)
    assert process.wait(timeout=10) == code
    images_seen = cardigan.load(out).images_seen
    assert f"{images_seen:08d}" in checkpoints(out)


def test_other_settings_and_existing_folders_raise(uninterrupted_run):
    before = (uninterrupted_run / "config.json").read_bytes()
    small = {"batch_size": 16, "generator.width": 8, "discriminator.width": 8}
    with pytest.raises(CardiganError, match=r"generator\.width: 8 -> 16"):
        cardigan.train(
            "mnist", out=uninterrupted_run, images=960, resume=True, overrides={**small, "generator.width": 16}
        )
    with pytest.raises(CardiganError, match="add --resume"):
        cardigan.train("mnist", out=uninterrupted_run, images=960, overrides=small)
    assert (uninterrupted_run / "config.json").read_bytes() == before
