"""Cost of the collectives of an iteration: measured between processes of this machine, calculated for clusters.

    python benchmarks/all_reduce.py [--processes 2] [--recipe tutorial] [--step-ms 3.6 29] [--link-gbytes 50]
        [--latency-us 20]

The measurement is one flat all-reduce of each recipe's gradients (gloo) in fp32 and bf16, and all collectives of batch
normalization of an iteration. The calculation takes a GPU's step time and the bandwidth of its slowest link as given:
a ring sends 2 (N - 1) / N times the bytes through each link, and a tree adds 2 log2(N) latencies to each collective.
No communication overlaps with computation. The collectives of an iteration are

    gradients              one per update of a network, of all its gradients
    batch normalization    one per layer and pass, of two numbers per channel (fp64 forward, fp32 backward). G:
                           forward, and backward if it is updated. D: forward and backward on generated and on real
                           images, and once more on generated images if G is updated; with a relativistic loss also
                           forward on real images
    ADA                    one, of one number
    reasons for stopping   one in 16 iterations, of two numbers
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import distributed, nn

from cardigan.config import Config
from cardigan.experiment import build
from cardigan.nets.table import build_discriminator, build_generator
from cardigan.objective.losses import find_loss
from cardigan.recipes import RECIPES
from cardigan.training.budget import MAX_INTERVAL

CLUSTERS = (8, 16, 64, 256, 1024)
WIRE_BYTES = {"fp32": 4, "bf16": 2}


@dataclass(frozen=True)
class Collectives:
    """The collectives of an iteration: means over the iterations with and without an update of G."""

    num_gradients: float
    """All-reduces of gradients."""
    num_parameters: float
    """Gradients in them, in all."""
    num_batch_norms: float
    batch_norm_bytes: float
    """The size of the statistics of batch-normalized layers, of all these collectives."""
    num_others: float

    def milliseconds(self, num_processes: int, wire: str, link_gbytes: float, latency_us: float) -> float:
        """Return the calculated time of all collectives of an iteration."""
        megabytes = (self.num_parameters * WIRE_BYTES[wire] + self.batch_norm_bytes) / 1e6
        count = self.num_gradients + self.num_batch_norms + self.num_others
        ring = 2 * (num_processes - 1) / num_processes * megabytes / link_gbytes
        return ring + count * 2 * math.log2(num_processes) * latency_us / 1e3


def collectives(config: Config) -> Collectives:
    """Return the collectives of an iteration of a run of several processes."""
    if config.objective.penalties and config.discriminator.normalization != "none":
        raise NotImplementedError("penalties take further passes through batch normalization")
    spec = build.build_spec(config, build.build_source(config))
    with torch.device("meta"):
        generator, discriminator = build_generator(config, spec), build_discriminator(config, spec)
    updates = 1 / config.n_critic
    repeats = config.gradient_accumulation
    needs_real = find_loss(config.objective.loss).needs_real_logits
    passes = {  # forward and backward; G generates again for an update from several microbatches
        generator: (repeats * (1 + (updates if repeats > 1 else 0)), repeats * updates),
        discriminator: (repeats * (2 + updates * (2 if needs_real else 1)), repeats * (2 + updates)),
    }
    norms = {network: _batch_norms(network) for network in passes}
    return Collectives(
        num_gradients=1 + updates,
        num_parameters=_num_parameters(discriminator) + updates * _num_parameters(generator),
        num_batch_norms=sum(sum(passes[network]) * layers for network, (layers, _) in norms.items()),
        batch_norm_bytes=sum(
            2 * channels * (8 * passes[network][0] + 4 * passes[network][1]) for network, (_, channels) in norms.items()
        ),
        num_others=(1 if config.augment.target else 0) + 1 / MAX_INTERVAL,
    )


def _batch_norms(network: nn.Module) -> tuple[int, int]:
    """Return the number of batch-normalized layers that are synchronized, and of their channels."""
    channels = [module.num_features for module in network.modules() if type(module) is nn.BatchNorm2d]
    return len(channels), sum(channels)


def _num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2, help="0 measures nothing")
    parser.add_argument("--recipe", choices=sorted(RECIPES), help="default: all recipes")
    parser.add_argument(
        "--step-ms", type=float, nargs="+", default=[3.6, 29.0], help="iterations of one GPU without communication"
    )
    parser.add_argument("--link-gbytes", type=float, default=50.0, help="GB/s of the slowest link of a GPU")
    parser.add_argument("--latency-us", type=float, default=20.0, help="one hop between nodes")
    options = parser.parse_args()
    recipes = [options.recipe] if options.recipe else list(RECIPES)
    if "RANK" in os.environ:
        measure(recipes)
        return
    if options.processes:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        words = [f"--nproc-per-node={options.processes}", __file__, *sys.argv[1:]]
        subprocess.run([*launcher, *words], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    print(
        f"\ncalculated, at {options.link_gbytes:g} GB/s and {options.latency_us:g} us per hop: time of all collectives "
        "of an iteration, and efficiency at each step time"
    )
    for recipe in recipes:
        print(f"\n{table(recipe, options.step_ms, options.link_gbytes, options.latency_us)}")


def table(recipe: str, step_ms: list[float], link_gbytes: float, latency_us: float) -> str:
    """Return the calculated costs of a recipe as Markdown."""
    found = collectives(RECIPES[recipe].config())
    columns = [f"{wire}, {step:g} ms per step" for wire in WIRE_BYTES for step in step_ms]
    lines = [
        f"{recipe}: {found.num_parameters:,.0f} gradients, {found.num_batch_norms:g} collectives of batch "
        f"normalization, {found.num_gradients + found.num_others:g} others per iteration",
        "",
        f"| GPUs | {' | '.join(columns)} |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for count in CLUSTERS:
        cells = []
        for wire in WIRE_BYTES:
            milliseconds = found.milliseconds(count, wire, link_gbytes, latency_us)
            cells += [f"{milliseconds:.1f} ms, {100 * step / (step + milliseconds):.0f} %" for step in step_ms]
        lines.append(f"| {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def measure(recipes: list[str]) -> None:
    """Print the time of each recipe's all-reduces between the processes of this run."""
    distributed.init_process_group("gloo")
    for recipe in recipes:
        found = collectives(RECIPES[recipe].config())
        for dtype in (torch.float32, torch.bfloat16):
            gradients = torch.ones(round(found.num_parameters), dtype=dtype)
            milliseconds = median_ms(lambda gradients=gradients: distributed.all_reduce(gradients))
            megabytes = gradients.nbytes / 1e6
            report(f"{recipe} gradients {dtype} {megabytes:.1f} MB, {milliseconds:.1f} ms")
        if found.num_batch_norms:
            number = round(found.num_batch_norms)
            rows = torch.ones(round(found.batch_norm_bytes / 4 / number))
            milliseconds = median_ms(
                lambda rows=rows, number=number: [distributed.all_reduce(rows) for _ in range(number)]
            )
            report(f"{recipe} batch normalization, {number} collectives, {milliseconds:.1f} ms")
    time.sleep(0.1)  # gloo's threads release their last tensors a moment after the collective
    distributed.destroy_process_group()


def median_ms(collective: Callable[[], object]) -> float:
    """Return the median time of nine calls, in milliseconds."""
    seconds = []
    for _ in range(9):
        distributed.barrier()
        started_at = time.perf_counter()
        collective()
        seconds.append(time.perf_counter() - started_at)
    return 1e3 * statistics.median(seconds)


def report(text: str) -> None:
    if distributed.get_rank() == 0:
        print(f"measured, {distributed.get_world_size()} processes, gloo: {text} (median of 9)")


if __name__ == "__main__":
    main()
