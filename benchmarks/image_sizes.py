"""Measure what a training image costs at each size: images per second and memory of a recipe, each in its own process.

    python benchmarks/image_sizes.py [--recipes images-dcgan,images] [--sizes 64,128,256] [--rounds 3]

Sizes and recipes are measured in turn, so that a slow minute of the machine hits all of them. Prints a Markdown table
with the median of the rounds.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys

from cardigan.experiment.build import measure_throughput
from cardigan.overrides import override
from cardigan.recipes import find_recipe
from cardigan.training.devices import open_devices

DCGAN_WIDTH = 32
"""The width that a CPU gets from `cardigan.experiment.auto`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", default="images-dcgan,images")
    parser.add_argument("--sizes", default="64,128,256")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=2, metavar=("RECIPE", "SIZE"), help="measure one, in this process")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure[0], int(options.measure[1]))))
        return
    cells = [(recipe, size) for size in options.sizes.split(",") for recipe in options.recipes.split(",")]
    rows: dict[tuple[str, str], list[dict[str, float]]] = {cell: [] for cell in cells}
    for _ in range(options.rounds):
        for cell in cells:
            command = [sys.executable, __file__, "--measure", *cell]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows[cell].append(json.loads(output))
    print("| size | recipe | images/s | MB |\n|---|---|---|---|")
    for (recipe, size), found in rows.items():
        speed, memory = (statistics.median(each[name] for each in found) for name in ("images_per_second", "megabytes"))
        print(f"| {size} | `{recipe}` | {speed:.1f} | {memory:.0f} |")


def measure(recipe: str, size: int) -> dict[str, float]:
    settings = {"data.height": size, "data.width": size, "data.channels": 4}
    if recipe == "images-dcgan":
        settings |= {"generator.width": DCGAN_WIDTH, "discriminator.width": DCGAN_WIDTH}
    config = override(find_recipe(recipe).config(), settings)
    speed = measure_throughput(config, open_devices(config))
    return {
        "images_per_second": speed,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    main()
