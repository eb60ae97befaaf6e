"""Measure how fast Cardigan trains and samples, in turn with a plain PyTorch loop and a matrix product.

    python benchmarks/speed.py [--recipes tutorial,mnist] [--batches own,256] [--windows 7] [--seconds 6]
                               [--device cpu] [--out FILE.json]

There are three worker processes (`speed_workers.py`): a plain eager fp32 loop (`plain_pytorch.py`), Cardigan, and a
matrix product. They run in turn, window after window, so that a slow minute of the machine affects all of them.
Images/s are medians over the windows with minimum and maximum; the ratio is the median of the windows' ratios. FLOP/s
are counted from the networks (`nets/table.py`, `summarize_model`).
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cardigan.config import Config
from cardigan.experiment import build
from cardigan.nets.table import build_discriminator, build_generator, summarize_model
from cardigan.recipes import find_recipe
from speed_workers import Worker, config_of, warm_up_steps

SAMPLES = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", default="tutorial,mnist")
    parser.add_argument("--batches", default="own,256")
    parser.add_argument("--windows", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of one window of one process")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path(f"benchmarks/results/speed-{datetime.date.today()}.json"))
    options = parser.parse_args()
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    result: dict[str, Any] = {
        "machine": machine(),
        "command": " ".join(["python", *sys.argv]),
        "start": startup_seconds(),
        "rows": [],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for recipe in options.recipes.split(","):
        recipe_batch_size = find_recipe(recipe).config().batch_size
        sizes = [recipe_batch_size if text == "own" else int(text) for text in options.batches.split(",")]
        for batch_size in dict.fromkeys(sizes):
            result["rows"].append(compare(recipe, batch_size, options))
            options.out.write_text(json.dumps(result, indent=1) + "\n")  # after every row, so that no row is lost
    print(table(result))
    print(f"\nWritten to {options.out}")


def compare(recipe: str, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return one row: both loops on one recipe at one batch size, in alternating windows."""
    settings = {"recipe": recipe, "batch_size": batch, "device": options.device}
    plain, ours, matrix = Worker("plain", settings), Worker("cardigan", settings), Worker("matrix", settings)
    steps = dict.fromkeys((plain, ours), 1)
    for worker in steps:
        worker.ask(steps=warm_up_steps(config_of(settings)))
        steps[worker] = max(1, round(2 * options.seconds / worker.ask(steps=2)["seconds"]))
    speeds: dict[str, list[float]] = {"plain": [], "cardigan": [], "bf16": [], "fp32": []}
    for _ in range(options.windows):
        for name, worker in (("plain", plain), ("cardigan", ours)):
            speeds[name].append(steps[worker] * batch / worker.ask(steps=steps[worker])["seconds"])
        for name, rate in matrix.ask(rates=["bf16", "fp32"]).items():
            speeds[name].append(rate)
    samples: dict[str, list[float]] = {"plain": [], "cardigan": []}
    for worker in (plain, ours):
        worker.ask(samples=128)
    for _ in range(options.windows):
        for name, worker in (("plain", plain), ("cardigan", ours)):
            samples[name].append(SAMPLES / worker.ask(samples=SAMPLES)["seconds"])
    memory = {
        name: round(worker.ask(memory=True)["megabytes"]) for name, worker in (("plain", plain), ("cardigan", ours))
    }
    for worker in (plain, ours, matrix):
        worker.end()
    flop = flop_per_image(config_of(settings))
    reached = statistics.median(speeds["cardigan"]) * flop
    return {
        "recipe": recipe,
        "batch_size": batch,
        "images_per_second": {name: spread(values) for name, values in speeds.items() if name in samples},
        "ratio": spread([ours / plain for ours, plain in zip(speeds["cardigan"], speeds["plain"], strict=True)]),
        "flop_per_image": flop,
        "gflop_per_second": {
            "cardigan": round(reached / 1e9),
            "bf16 product": spread(speeds["bf16"]),
            "fp32 product": spread(speeds["fp32"]),
        },
        "fraction_of_bf16_product": spread(
            [s * flop / 1e9 / r for s, r in zip(speeds["cardigan"], speeds["bf16"], strict=True)]
        ),
        "peak_megabytes": memory,
        "samples_per_second": {name: spread(values) for name, values in samples.items()},
    }


def spread(values: list[float]) -> dict[str, float]:
    digits = 3 if statistics.median(values) < 10 else 1
    return {
        "median": round(statistics.median(values), digits),
        "low": round(min(values), digits),
        "high": round(max(values), digits),
    }


def flop_per_image(config: Config) -> float:
    """Return the floating-point operations of one iteration for one image.

    A backward pass costs one forward pass per gradient (weights, inputs). G: forward, both gradients. D: forward and
    both gradients on fake and on real images; forward and one gradient in G's step; one more forward pass if the loss
    needs real logits there. A penalty adds the input gradient and its double backward, in total 4 passes.
    """
    with torch.device("meta"):
        spec = build.build_spec(config, build.build_source(config))
        networks = [build_generator(config, spec), build_discriminator(config, spec)]
    generator, discriminator = (
        summarize_model(network, spec, config.latent.size).multiply_adds for network in networks
    )
    needs_real_logits = config.objective.loss == "relativistic"
    penalties = (
        4
        * ((config.objective.penalties.get("r1", 0.0) > 0) + (config.objective.penalties.get("r2", 0.0) > 0))
        / config.objective.penalty_interval
    )
    return 2 * (3 * generator + (8 + needs_real_logits + penalties) * discriminator)


def startup_seconds() -> dict[str, dict[str, float]]:
    """Return seconds from the start of a command to the help, the first image and the first optimizer step."""
    seconds: dict[str, list[float]] = {"help": [], "first image": [], "first step": []}
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "cardigan", "--help"], stdout=subprocess.DEVNULL, check=True)
        seconds["help"].append(time.perf_counter() - began)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            began = time.perf_counter()
            words = [sys.executable, "-m", "cardigan", "train", "mnist", "--minutes", "1", "--quiet", "--out", str(out)]
            with subprocess.Popen(words) as run:
                seconds["first image"].append(time_of((out / "samples" / "00000000.png").exists, began))
                seconds["first step"].append(time_of(partial(has_progress, out / "journal.jsonl"), began))
                run.kill()
    return {name: spread(values) for name, values in seconds.items()}


def has_progress(journal: Path) -> bool:
    return '"progress"' in journal.read_text()


def time_of(happened: Callable[[], bool], began: float) -> float:
    while not happened():
        time.sleep(0.005)
    return time.perf_counter() - began


def machine() -> dict[str, Any]:
    names = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    facts: dict[str, Any] = {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }
    facts |= {"bf16 products": torch.cpu._is_avx512_bf16_supported(), "date": str(datetime.date.today())}
    if torch.cuda.is_available():
        facts |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return facts


def table(result: dict[str, Any]) -> str:
    """Return the rows as Markdown."""

    def cell(value: dict[str, float]) -> str:
        return f"{value['median']:g} ({value['low']:g}-{value['high']:g})"

    heads = [
        "recipe",
        "batch_size",
        "plain, images/s",
        "Cardigan, images/s",
        "ratio",
        "GFLOP/s",
        "of the bf16 product",
        "peak MB, plain / ours",
        "samples/s, plain / ours",
    ]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in result["rows"]:
        speed, memory, samples = row["images_per_second"], row["peak_megabytes"], row["samples_per_second"]
        fraction = {name: 100 * value for name, value in row["fraction_of_bf16_product"].items()}
        cells = [
            f"`{row['recipe']}`",
            row["batch_size"],
            cell(speed["plain"]),
            cell(speed["cardigan"]),
            cell(row["ratio"]),
        ]
        cells += [
            row["gflop_per_second"]["cardigan"],
            f"{fraction['median']:.0f} % ({fraction['low']:.0f}-{fraction['high']:.0f})",
        ]
        cells += [
            f"{memory['plain']} / {memory['cardigan']}",
            f"{samples['plain']['median']:g} / {samples['cardigan']['median']:g}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    starts = ", ".join(f"{name} {cell(value)} s" for name, value in result["start"].items())
    return "\n".join([*lines, "", f"Start-up: {starts}"])


if __name__ == "__main__":
    main()
