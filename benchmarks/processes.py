"""Measure when more processes pay on one machine: one process with all cores against several that share them.

    python benchmarks/processes.py [--recipe mnist] [--processes 2] [--rounds 3] [--steps 12]

In turn: one process with all cores; one process with its share of the cores and of the batch, which bounds what
several could reach together without waiting for each other; and the processes under torchrun. Prints the median rate
over the rounds, and of several processes how long a step waits for the others and in how many collectives.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace

import torch

from cardigan.data.batches import Batches
from cardigan.data.source import ImageSource
from cardigan.experiment import build
from cardigan.recipes import config_for
from cardigan.training import distributed
from cardigan.training.devices import open_devices
from cardigan.training.inputs import step_inputs
from cardigan.training.loop import make_step
from cardigan.training.schedule import step_kind


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="mnist")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=0, help="instead of the recipe's")
    options = parser.parse_args()
    if os.environ.get("CARDIGAN_MEASURE"):
        measure(options.recipe, options.steps, options.batch_size)
        return
    batch_size = options.batch_size or config_for("mnist", options.recipe).batch_size
    cores, count = os.cpu_count() or 1, options.processes
    share = max(1, cores // count)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    ways = {
        f"one process, {cores} cores": ([sys.executable], cores, batch_size),
        f"one process, {share} core(s), batch {batch_size // count}": ([sys.executable], share, batch_size // count),
        f"{count} processes": (launcher, share, batch_size),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, (start, threads, size) in ways.items():
            words = [
                *start,
                __file__,
                "--recipe",
                options.recipe,
                "--steps",
                str(options.steps),
                "--batch-size",
                str(size),
            ]
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "CARDIGAN_MEASURE": "1"}
            output = subprocess.run(words, check=True, capture_output=True, text=True, env=environment).stdout
            found[name].append(json.loads(output.splitlines()[-1]))
    for name, results in found.items():
        medians = {key: statistics.median(result[key] for result in results) for key in results[0]}
        print(f"{name:34}", ", ".join(f"{key} {value:,.1f}" for key, value in medians.items()))


def measure(recipe: str, steps: int, batch_size: int) -> None:
    """Train on noise and print the rate and the waiting of this process."""
    config = config_for("mnist", recipe)
    networks = {name: replace(getattr(config, name), conditioning="auto") for name in ("generator", "discriminator")}
    config = replace(config, batch_size=batch_size, conditional=False, **networks)
    devices, data = open_devices(config), config.data
    noise = torch.randint(0, 256, (batch_size, data.channels, data.height, data.width), dtype=torch.uint8)
    source = ImageSource("noise", noise, torch.zeros(batch_size, dtype=torch.long), 0)
    state = build.build_state(config, build.image_spec(data, 0), devices)
    batches = Batches(source, data, 0)
    step = make_step(state, batches, build.build_step_config(config, devices))
    waits, wait = [], distributed._wait

    def timed_wait(*arguments: object, **options: object) -> None:
        start = time.perf_counter()
        wait(*arguments, **options)  # pyright: ignore[reportArgumentType]
        waits.append(time.perf_counter() - start)

    distributed._wait = timed_wait

    def train(numbers: range) -> float:
        start = time.perf_counter()
        waits.clear()
        for number in numbers:
            images_seen = batch_size * number
            step(step_inputs(config, batches, images_seen, devices), step_kind(config, images_seen))
        return time.perf_counter() - start

    train(range(4))
    seconds = train(range(4, 4 + steps))
    result = {
        "images/s": batch_size * steps / seconds,
        "ms a step": 1e3 * seconds / steps,
        "ms waiting": 1e3 * sum(waits) / steps,
        "collectives a step": len(waits) / steps,
    }
    if devices.process_group.is_main:
        print(json.dumps(result), flush=True)
    devices.process_group.destroy()


if __name__ == "__main__":
    main()
