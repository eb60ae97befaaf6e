"""Cost of all-reducing gradients: measured between processes of this machine, calculated for clusters.

    python benchmarks/all_reduce.py [--processes 2] [--step-ms 3.6] [--link-gbytes 50] [--latency-us 20]

The measurement is one flat all-reduce of each recipe's gradients (gloo) in fp32 and bf16. The calculation takes a
GPU's step time and the bandwidth of its slowest link as given: a ring sends 2 (N - 1) / N times the bytes through
each link, and a tree adds 2 log2(N) latencies. The gradients of both networks are reduced once per iteration, after
their backward passes, with no overlap.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
import time

import torch
from torch import distributed

from cardigan.experiment import build
from cardigan.nets.table import build_discriminator, build_generator
from cardigan.recipes import RECIPES

CLUSTERS = (8, 16, 64, 256, 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--step-ms", type=float, default=3.6, help="one iteration of one GPU without communication")
    parser.add_argument("--link-gbytes", type=float, default=50.0, help="GB/s of the slowest link of a GPU")
    parser.add_argument("--latency-us", type=float, default=20.0, help="one hop between nodes")
    options = parser.parse_args()
    if "RANK" in os.environ:
        measure_all_reduce()
        return
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={options.processes}",
        __file__,
    ]
    subprocess.run(launcher, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    print(
        f"\ncalculated, at {options.step_ms} ms per step, {options.link_gbytes} GB/s, {options.latency_us} us per hop "
        "(in parentheses: efficiency)"
    )
    for recipe in RECIPES:
        for wire, size in (("fp32", 4), ("bf16", 2)):
            megabytes = num_parameters(recipe) * size / 1e6
            cells = []
            for count in CLUSTERS:
                milliseconds = all_reduce_ms(megabytes, count, options.link_gbytes, options.latency_us)
                efficiency = options.step_ms / (options.step_ms + milliseconds)
                cells.append(f"{count} GPUs {milliseconds:.2f} ms ({100 * efficiency:.0f} %)")
            print(f"{recipe:9} {wire} {megabytes:6.1f} MB: {', '.join(cells)}")


def all_reduce_ms(megabytes: float, count: int, gbytes_per_second: float, latency_us: float) -> float:
    """Return the total time of the all-reduces of both networks."""
    return 2 * (count - 1) / count * megabytes / gbytes_per_second + 2 * 2 * math.log2(count) * latency_us / 1e3


def num_parameters(recipe: str) -> int:
    """Return the number of gradients per iteration, of both networks."""
    config = RECIPES[recipe].config()
    spec = build.build_spec(config, build.build_source(config))
    with torch.device("meta"):
        networks = (build_generator(config, spec), build_discriminator(config, spec))
    return sum(
        parameter.numel() for network in networks for parameter in network.parameters() if parameter.requires_grad
    )


def measure_all_reduce() -> None:
    distributed.init_process_group("gloo")
    for recipe in RECIPES:
        count = num_parameters(recipe)
        for dtype in (torch.float32, torch.bfloat16):
            gradients, seconds = torch.ones(count, dtype=dtype), []
            for _ in range(9):
                distributed.barrier()
                began = time.perf_counter()
                distributed.all_reduce(gradients)
                seconds.append(time.perf_counter() - began)
            if distributed.get_rank() == 0:
                megabytes = count * gradients.element_size() / 1e6
                print(
                    f"measured, {distributed.get_world_size()} processes, gloo: {recipe} {dtype} {megabytes:.1f} MB, ",
                    end="",
                )
                print(f"{1e3 * statistics.median(seconds):.1f} ms (median of {len(seconds)})")
    time.sleep(0.1)  # gloo's threads release their last tensors a moment after the collective
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
