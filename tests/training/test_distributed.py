"""Several processes on gloo give the weights of one (1e-5), detect divergence, and survive a killed process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cardigan.errors import CardiganError
from cardigan.overrides import override
from cardigan.recipes import config_for
from cardigan.run.checkpoint import list_checkpoints, load_latest_checkpoint
from cardigan.training.distributed import check_world_size, checksum

SMALL = ["--batch-size=16", "--precision=fp32", "--quiet", "--generator.width=4", "--discriminator.width=4"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(out: Path, num_processes: int, images: int, *options: str) -> list[str]:
    words = [
        sys.executable,
        "-m",
        "cardigan",
        "train",
        "mnist",
        f"--images={images}",
        "--out",
        str(out),
        f"--devices={num_processes}",
    ]
    return [*words, *SMALL, *options]


def train(out: Path, num_processes: int, images: int, *options: str) -> dict[str, torch.Tensor]:
    process = subprocess.run(  # noqa: PLW1510 - the assertion shows its output
        command(out, num_processes, images, *options), capture_output=True, text=True, timeout=300, env=ENVIRONMENT
    )
    assert process.returncode == 0, process.stderr
    assert not process.stderr
    return final_state(out)


def final_state(out: Path) -> dict[str, torch.Tensor]:
    latest = load_latest_checkpoint(out / "checkpoints")
    assert latest is not None
    return latest[0]


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_two_processes_equal_one(tmp_path, norm):
    """Equal weights also mean equal images in the same order, for any world size."""
    settings = [f"--{role}.normalization={norm}" for role in ("generator", "discriminator")]
    # Adam divides a gradient by its magnitude, so it amplifies rounding where the true gradient is nearly 0. A small
    # learning rate limits that.
    settings += [
        f"--{role}-optimizer.{name}"
        for role in ("generator", "discriminator")
        for name in ("learning-rate=1e-4", "beta1=0.5")
    ]
    one, two = train(tmp_path / "one", 1, 96, *settings), train(tmp_path / "two", 2, 96, *settings)
    for name, value in one.items():
        if name.startswith(("generator.", "discriminator.", "ema_generator.")):
            assert torch.allclose(value.float(), two[name].float(), rtol=0, atol=1e-5), name


def test_bf16_all_reduce_differs_by_rounding(tmp_path):
    """After one step D's first moment is its gradient (beta1 is 0): a rounded sum of two halves rounded to 8 bits."""
    exact, rounded = train(tmp_path / "fp32", 2, 16), train(tmp_path / "bf16", 2, 16, "--all-reduce-dtype=bf16")
    names = [name for name in exact if name.startswith("discriminator_optimizer.") and name.endswith(".weight.exp_avg")]
    assert len(names) == 5  # four convolutions and the projection of classes
    for name in names:
        error = (exact[name] - rounded[name]).norm() / exact[name].norm()
        assert 2**-14 < error < 2**-7, name


def test_killed_rank_stops_all_and_resume_is_bit_exact(tmp_path):
    whole = train(tmp_path / "whole", 2, 4800, "--checkpoint-every-images=320")
    broken = tmp_path / "broken"
    with subprocess.Popen(
        command(broken, 2, 4800, "--checkpoint-every-images=320"), stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as launcher:
        wait_until(lambda: len(list_checkpoints(broken / "checkpoints")) >= 3, launcher)
        workers = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        assert len(workers) == 2
        os.kill(int(workers[1]), signal.SIGKILL)
        _, stderr = launcher.communicate(timeout=60)
    assert launcher.returncode == 128 + signal.SIGKILL
    assert "Process 1 of the run was killed (signal 9)" in stderr and "--resume" in stderr and "Traceback" not in stderr
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert int(list_checkpoints(broken / "checkpoints")[-1].name) < 4800
    resumed = train(broken, 2, 4800, "--checkpoint-every-images=320", "--resume")
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def wait_until(condition, launcher, seconds=60):
    start = time.monotonic()
    while not condition():
        assert launcher.poll() is None and time.monotonic() - start < seconds
        time.sleep(0.01)


def test_signal_to_launcher_saves_and_stops_all(tmp_path):
    out = tmp_path / "run"
    with subprocess.Popen(command(out, 2, 10**6), stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as launcher:
        wait_until(
            lambda: (out / "journal.jsonl").exists() and "progress" in (out / "journal.jsonl").read_text(), launcher
        )
        launcher.terminate()
        _, stderr = launcher.communicate(timeout=60)
    assert launcher.returncode == 128 + signal.SIGTERM, stderr
    assert '"reason": "SIGTERM"' in (out / "journal.jsonl").read_text().splitlines()[-1]
    assert int(list_checkpoints(out / "checkpoints")[-1].name) > 0


DIVERGING = """
import torch
from cardigan.config import Config
from cardigan.errors import CardiganError
from cardigan.training.devices import open_devices
process_group = open_devices(Config(device="cpu")).process_group
tensors = {"generator.a": torch.arange(6.0), "generator.b": torch.zeros(2, 3), "generator.c": torch.ones(3)}
process_group.check_replicas(tensors, 640)
tensors["generator.b"][1, 2] = 1e-30 * process_group.rank
tensors["generator.c"][0] += process_group.rank
try:
    process_group.check_replicas(tensors, 1280)
except CardiganError as error:
    print(error)
process_group.barrier()
process_group.destroy()
"""


def test_divergence_error_names_first_tensor(tmp_path):
    script = tmp_path / "diverging.py"
    script.write_text(DIVERGING)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    process = subprocess.run(launcher, capture_output=True, text=True, timeout=120, env=ENVIRONMENT, check=True)
    assert process.stdout.count("no longer agree after 1,280 images: generator.b is the first of 2 tensors") == 2
    assert "640 images" not in process.stdout


def test_checksum_covers_every_bit_and_position():
    tensor = torch.randn(4, 5)
    changed, swapped = tensor.clone(), tensor.clone()
    changed.view(torch.int32)[2, 3] ^= 1
    swapped[[0, 1]] = swapped[[1, 0]]
    assert torch.equal(checksum(tensor), checksum(tensor.clone()))
    assert torch.equal(checksum(tensor), checksum(tensor.t().contiguous().t()))  # independent of the memory layout
    assert not torch.equal(checksum(tensor), checksum(changed))
    assert not torch.equal(checksum(tensor), checksum(swapped))
    assert checksum(torch.tensor(3)).shape == checksum(torch.tensor([1, 2], dtype=torch.uint8)).shape == (2,)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--devices=3"], "batch_size is 16 over 3 processes: expected a multiple of 3."),
        (["--devices=0"], "--devices is 0: expected 1..64"),
        (["--devices=2", "--device=cuda:9"], "device is 'cuda:9'"),
    ],
)
def test_invalid_device_counts_raise(tmp_path, words, message):
    out = tmp_path / "run"
    process = subprocess.run(  # noqa: PLW1510
        [*command(out, 1, 32)[:-6], *SMALL, "--out", str(out), *words],
        capture_output=True,
        text=True,
        timeout=120,
        env=ENVIRONMENT,
    )
    assert process.returncode == 2, process.stderr
    assert message in process.stderr and "Traceback" not in process.stderr
    assert not out.exists()


def test_minibatch_stddev_group_must_fit_one_process():
    config = override(config_for("mnist"), {"batch_size": 16, "discriminator.minibatch_stddev": 16})
    with pytest.raises(CardiganError, match="each process computes 8 logits at a time: set it to 8"):
        check_world_size(config, 2)
