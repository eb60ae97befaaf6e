"""Train what a user might pick instead of Cardigan, on the same images, with the same metrics and for the same time.

    python benchmarks/rivals/compare.py --set avatars-1000-64 --minutes 5,15 [--rivals images,dcgan,edm,flow,meanflow]
                                        [--seeds 0] [--rates '{"edm": 5e-4}'] [--batch 32] [--threads 1]
                                        [--out runs/rivals]

Each rival trains alone on all threads of this process. At each of the minutes 1,000 samples are measured as
`benchmarks/images.py` does, for each number of sampling steps. The time of measuring does not count. A recipe of
Cardigan among the rivals is trained by `cardigan train` with nothing but the minutes and the size, and its start-up and
its own scores count. Rows are written to OUT/rivals-SET-RIVAL-SEED.json, with the command, the machine and its
measured speed, and a checksum; a file that is there is not written again.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from dcgan import LEARNING_RATE, Dcgan
from dcgan import SIDE as DCGAN_SIDE
from denoiser import Denoiser
from edm import Edm
from flow import Flow
from meanflow import MeanFlow

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import images as comparison
from cardigan.bench.machine import describe_machine
from cardigan.bench.record import FORMAT, seal, write_record
from cardigan.config import BUILTIN_SOURCES, Config
from cardigan.config_parts import DataConfig
from cardigan.data.batches import Batches
from cardigan.data.datasets import dataset_stats, open_datasets
from cardigan.figures.grid import make_grid, png_bytes
from cardigan.files import atomic
from cardigan.hardware.memory import keep_freed_memory
from cardigan.inference.model import load
from cardigan.metrics.reference import Reference, Sampler, array_sampler, to_reference_shape
from cardigan.metrics.reference_loader import load_reference
from cardigan.pixels import encode
from cardigan.recipes import RECIPES
from cardigan.shapes import Pixels
from image_sets import image_set

DENOISERS: dict[str, type[Edm] | type[Flow] | type[MeanFlow]] = {"edm": Edm, "flow": Flow, "meanflow": MeanFlow}
DENOISER_RATE = 1e-3
BATCHES = {"dcgan": 16, "edm": 16, "flow": 16, "meanflow": 16}
"""As the recipe `images`: 15 minutes on a core are only a thousand steps with batches of 32."""
NUM_SAMPLES, SAMPLE_BATCH = 1_000, 50
NUM_EXAMPLES = 25
"""Samples of each row that are kept as a picture."""
KNOWN = ("set", "minutes", "recipe", "seed")
"""Of a result of `images.py`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="avatars-1000-64", help="mnist, or a set of benchmarks/image_sets.py")
    parser.add_argument("--minutes", default="5,15")
    parser.add_argument("--rivals", default="images,dcgan,edm,flow,meanflow")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; default: those of PyTorch")
    parser.add_argument("--batch", type=int, default=0, help="default: that of each rival")
    parser.add_argument("--rates", type=json.loads, default={}, help="learning rates by rival, as JSON")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--samples", type=int, default=NUM_SAMPLES)
    parser.add_argument("--steps", default="", help="numbers of sampling steps; default: those of each rival")
    parser.add_argument("--out", type=Path, default=Path("runs/rivals"))
    options = parser.parse_args()
    known = [*RECIPES, *BATCHES]
    for rival in options.rivals.split(","):
        if rival not in known:
            parser.error(f"there is no rival {rival!r}: expected recipes or rivals of {', '.join(known)}")
    if "dcgan" in options.rivals.split(",") and options.side != DCGAN_SIDE:
        parser.error(f"dcgan is for images of {DCGAN_SIDE}x{DCGAN_SIDE} only: leave it out of --rivals, or --side")
    options.out.mkdir(parents=True, exist_ok=True)
    if options.threads:
        torch.set_num_threads(options.threads)
    words = [word for index, word in enumerate(sys.argv[1:], 1) if "--out" not in (word, sys.argv[index - 1])]
    command = shlex.join(["python", "benchmarks/rivals/compare.py", *words])
    facts = {"set": options.set, "date": time.strftime("%Y-%m-%d"), "machine": describe_machine("cpu")}
    for seed in options.seeds.split(","):
        for rival in options.rivals.split(","):
            path = options.out / f"rivals-{options.set}-{rival}-{seed}.json"
            if path.exists():
                continue
            rows = list[dict[str, Any]]()
            for row in (recipe_rows if rival in RECIPES else rival_rows)(rival, int(seed), options):
                rows.append({"set": options.set, "rival": rival, "seed": int(seed), **row})
                print(json.dumps(rows[-1]), flush=True)
            write_record(path, seal({"format": FORMAT, **facts, "command": command, "rows": rows}))


def recipe_rows(recipe: str, seed: int, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Train a recipe of Cardigan; the run of each time continues the one before."""
    limits = sorted(float(each) for each in options.minutes.split(","))
    size = {"data.height": options.side, "data.width": options.side}
    for earlier, minutes in pairwise([0.0, *limits]):
        values = comparison.row(options.out, options.set, recipe, seed, (earlier, minutes), size, "", options.samples)
        run = options.out / f"{options.set}-{minutes:g}min-{recipe}-{seed}"
        model = load(run)
        model.sample(SAMPLE_BATCH)
        started_at = time.perf_counter()
        images = model.sample(options.samples, seed=seed)
        seconds = time.perf_counter() - started_at
        keep_examples(options.out / f"{run.name}.png", torch.from_numpy(images).permute(0, 3, 1, 2))
        weights = sum(each.numel() for each in model.snapshot.generator.parameters())
        batch = model.snapshot.config.batch_size
        speed = {"batch": batch, "weights": weights, "steps": 1, "samples_per_second": round(len(images) / seconds, 1)}
        yield {"minutes": minutes, **speed, **{key: values[key] for key in values if key not in KNOWN}}


def rival_rows(name: str, seed: int, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Train one rival for the longest time, and measure it at each time with each number of sampling steps."""
    torch.manual_seed(seed)
    data = data_config(options.set, options.side)
    batches, reference = Batches(open_datasets(data).train, data, seed), load_reference(Config(data=data))
    rival, batch = make_rival(name, data, options.rates), options.batch or BATCHES[name]
    tried = [int(each) for each in options.steps.split(",")] if options.steps else rival.steps
    seen, trained_seconds = 0, 0.0
    for limit in sorted(float(each) for each in options.minutes.split(",")):
        with keep_freed_memory():
            while trained_seconds < 60 * limit:
                started_at = time.perf_counter()
                images = batches.batch_at(seen, batch).images.contiguous(memory_format=rival.memory_format)
                rival.step(images, seen)
                seen += batch
                trained_seconds += time.perf_counter() - started_at
        for steps in tried:
            random, started_at = torch.Generator().manual_seed(seed), time.perf_counter()
            counts = [SAMPLE_BATCH] * (options.samples // SAMPLE_BATCH)
            pixels = torch.cat([encode(rival.sample(count, steps, random)) for count in counts])
            speed = round(len(pixels) / (time.perf_counter() - started_at), 1)
            keep_examples(options.out / f"{options.set}-{limit:g}min-{name}-{seed}-{steps}.png", pixels)
            pixels = to_reference_shape(pixels, data, reference.image_shape)
            values = comparison.judge(partial(existing_images, pixels), reference, len(pixels))
            facts = {
                "batch": batch,
                "weights": rival.num_weights(),
                "steps": steps,
                "samples_per_second": speed,
                "images": seen,
            }
            yield {"minutes": limit, **facts, **values}


def make_rival(name: str, data: DataConfig, rates: dict[str, float]) -> Dcgan | Denoiser:
    if name == "dcgan":
        return Dcgan(data.channels, rates.get(name, LEARNING_RATE))
    shape = (data.channels, data.height, data.width)
    return Denoiser(DENOISERS[name](data.channels), rates.get(name, DENOISER_RATE), shape)


def existing_images(pixels: Pixels, reference: Reference) -> Sampler:
    del reference
    return array_sampler(pixels)


def data_config(name: str, side: int) -> DataConfig:
    """Return the settings of the images; the holdout is that of `cardigan train`."""
    if name in BUILTIN_SOURCES:
        return DataConfig(source=name, height=side, width=side, channels=1)
    source = str(image_set(name))
    stats = dataset_stats(DataConfig(source=source))
    holdout = min(1_000, stats.num_images // 20) if stats.num_images >= Config().batch_size * 15 else 0
    return DataConfig(source=source, resize="crop", holdout=holdout, height=side, width=side, channels=stats.channels)


def keep_examples(path: Path, pixels: Pixels) -> None:
    atomic.write_bytes(path, png_bytes(make_grid(pixels[:NUM_EXAMPLES])))


if __name__ == "__main__":
    main()
