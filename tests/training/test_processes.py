"""Several processes on gloo give the same weights as one with the same global batch (1e-5), with and without batch normalisation."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cardigan.run.checkpoint import latest_checkpoint


def train(out: Path, num_processes: int, *more: str) -> dict[str, torch.Tensor]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)] if num_processes > 1 else []
    words = ["-m", "cardigan", "train", "mnist", "--images", "96", "--batch", "16", "--precision", "fp32", "--quiet", "--out", str(out)]
    small = ["--generator.width", "4", "--discriminator.width", "4", *more]
    done = subprocess.run(  # noqa: PLW1510 - what it printed is the message
        [sys.executable, *launcher, *words, *small], capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    found = latest_checkpoint(out / "checkpoints")
    assert found is not None
    return found[0]


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_two_processes_equal_one(tmp_path, norm):
    settings = [f"--{player}.normalisation={norm}" for player in ("generator", "discriminator")]
    # Adam divides a gradient by its own size, so where the true gradient is nearly zero its step amplifies rounding; a small rate keeps that apart.
    settings += [f"--{player}-optimizer.{name}" for player in ("generator", "discriminator") for name in ("learning-rate=1e-4", "beta1=0.5")]
    one, two = train(tmp_path / "one", 1, *settings), train(tmp_path / "two", 2, *settings)
    for name, value in one.items():
        if name.startswith(("generator.", "discriminator.", "average.")):
            assert torch.allclose(value.float(), two[name].float(), rtol=0, atol=1e-5), name
