"""Largest difference of a weight between a run of one process and one of several, after some steps.

    python benchmarks/process_drift.py [--recipe mnist] [--steps 6 20] [--processes 2] [--learning-rate 1e-4]
        [--width 8]

Both runs train on equal images in equal order, in fp32 on the CPU. They differ in the rounding of sums only, which Adam
amplifies where a gradient is nearly 0. The default learning rates and width are those of the recipe.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from cardigan.recipes import RECIPES
from cardigan.run.checkpoint import load_latest_checkpoint

NETWORKS = ("generator", "discriminator")
BATCH_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="mnist")
    parser.add_argument("--steps", type=int, nargs="+", default=[6, 20])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, help="default: the recipe's")
    parser.add_argument("--width", type=int, help="of both networks; default: the recipe's")
    options = parser.parse_args()
    settings = [
        f"--{network}{name}={value}"
        for network in NETWORKS
        for name, value in (("-optimizer.learning-rate", options.learning_rate), (".width", options.width))
        if value is not None
    ]
    print("| steps | largest difference of a weight |\n|---|---|")
    for steps in options.steps:
        print(f"| {steps} | {largest_difference(options.recipe, steps, options.processes, settings):.1e} |", flush=True)


def largest_difference(recipe: str, steps: int, processes: int, settings: list[str]) -> float:
    """Return the largest absolute difference of a weight of both networks after this many steps."""
    with tempfile.TemporaryDirectory() as folder:
        one, several = (
            final_weights(Path(folder) / str(number), recipe, steps, number, settings) for number in (1, processes)
        )
    return max(float((value - several[name]).abs().max()) for name, value in one.items())


def final_weights(out: Path, recipe: str, steps: int, processes: int, settings: list[str]) -> dict[str, torch.Tensor]:
    """Train in this many processes and return the weights of both networks."""
    config = RECIPES[recipe].config()
    images = steps * config.batch_size
    words = [sys.executable, "-m", "cardigan", "train", config.data.source, "--recipe", recipe, f"--images={images}"]
    words += [f"--devices={processes}", "--out", str(out), "--quiet", "--device=cpu", "--precision=fp32", *settings]
    subprocess.run(words, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    latest = load_latest_checkpoint(out / "checkpoints")
    assert latest is not None
    return {
        name: tensor.float()
        for name, tensor in latest[0].items()
        if name.startswith(tuple(f"{network}." for network in NETWORKS)) and not name.endswith(BATCH_STATISTICS)
    }


if __name__ == "__main__":
    main()
