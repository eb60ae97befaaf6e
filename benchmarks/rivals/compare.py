"""Train what a user might pick instead, on the same images, with the same score and the same clock.

    python benchmarks/rivals/compare.py --set icons --minutes 5,15,60 [--rivals edm,flow,meanflow] [--seeds 0]
                                        [--batch 32] [--rate 1e-3] [--out rivals.json]

Each rival trains alone on all threads. At each of the minutes its average of weights (half-life: a tenth of the images
seen) is scored: the quick score of Cardigan's checkpoints, 1,000 samples, for each number of sampling steps. The time
of scoring does not count. Printed beside: weights, images seen, samples a second. Cardigan's recipes are timed by
`benchmarks/images.py` and `cardigan bench`.
"""

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import torch
from edm import Edm
from flow import Flow
from meanflow import MeanFlow
from torch import Tensor, nn

from cardigan.config import Config
from cardigan.config_parts import DataConfig
from cardigan.data.batches import Batches
from cardigan.data.datasets import open_datasets
from cardigan.files import atomic
from cardigan.hardware.memory import keep_freed_memory
from cardigan.hardware.precision import multiplies_bf16
from cardigan.metrics.quick import quick_scorer
from cardigan.pixels import encode

RIVALS: dict[str, type[Edm] | type[Flow] | type[MeanFlow]] = {"edm": Edm, "flow": Flow, "meanflow": MeanFlow}
NUM_SAMPLES, SAMPLE_BATCH = 1_000, 50
HALF_LIFE_FRACTION = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="icons", help="mnist, or a set of benchmarks/image_sets.py")
    parser.add_argument("--minutes", default="5,15,60")
    parser.add_argument("--rivals", default="edm,flow,meanflow")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate of Adam")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--channels", type=int, default=4)
    parser.add_argument("--samples", type=int, default=NUM_SAMPLES)
    parser.add_argument("--steps", default="", help="numbers of sampling steps; default: those of each rival")
    parser.add_argument("--out", type=Path, default=Path("rivals.json"))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in options.seeds.split(","):
        for name in options.rivals.split(","):
            for row in train(name, int(seed), options):
                rows.append(row)
                print(json.dumps(row), flush=True)
                atomic.write_bytes(options.out, (json.dumps(rows, indent=1) + "\n").encode())


def train(name: str, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train one rival for the longest time, and return a row for each time and number of sampling steps."""
    torch.manual_seed(seed)
    data = data_config(options)
    datasets = open_datasets(data)
    scorer = quick_scorer(datasets.train, data, datasets.holdout)
    batches = Batches(datasets.train, data, seed)
    model = RIVALS[name](options.channels)
    model = model.to(memory_format=model.memory_format)  # pyright: ignore[reportCallIssue]
    average = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.rate, betas=(0.9, 0.99), fused=True)
    limits, rows = [60 * float(each) for each in options.minutes.split(",")], []
    seen, trained_seconds = 0, 0.0
    with keep_freed_memory():
        for limit in limits:
            while trained_seconds < limit:
                started_at = time.perf_counter()
                images = batches.batch_at(seen, options.batch).images.contiguous(memory_format=model.memory_format)
                use_bf16 = model.training_dtype == torch.bfloat16 and multiplies_bf16(torch.device("cpu"))
                with torch.autocast("cpu", torch.bfloat16, enabled=use_bf16):
                    loss = model.loss(images)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                seen += options.batch
                update_average(average, model, options.batch / (HALF_LIFE_FRACTION * seen))
                trained_seconds += time.perf_counter() - started_at
            rows += [
                {
                    **{"rival": name, "set": options.set, "seed": seed, "minutes": limit / 60, "images": seen},
                    **{"weights": sum(each.numel() for each in model.parameters()), "steps": steps},
                    **score(average, steps, scorer, options),
                }
                for steps in ([int(each) for each in options.steps.split(",")] if options.steps else model.steps)
            ]
    return rows


def data_config(options: argparse.Namespace) -> DataConfig:
    """Return the settings of the images; the holdout is that of `cardigan train`."""
    from image_sets import image_set

    source = options.set if options.set == "mnist" else str(image_set(options.set))
    shape = {"height": options.side, "width": options.side, "channels": options.channels}
    if options.set == "mnist":
        return DataConfig(source=source, **shape)
    count = len(list(Path(source).iterdir()))
    holdout = min(1_000, count // 20) if count >= Config().batch_size * 15 else 0
    return DataConfig(source=source, resize="crop", holdout=holdout, **shape)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, half_lives: float) -> None:
    for ours, theirs in zip(average.parameters(), model.parameters(), strict=True):
        ours.lerp_(theirs, 1 - 0.5**half_lives)


@torch.no_grad()
def score(model: Edm | Flow | MeanFlow, steps: int, scorer: Any, options: argparse.Namespace) -> dict[str, float]:
    """Return the quick score, and how fast the samples came."""
    generator = torch.Generator().manual_seed(1)
    shape = (options.samples, options.channels, options.side, options.side)
    noise, started_at, images = torch.randn(shape, generator=generator), time.perf_counter(), list[Tensor]()
    for part in noise.split(SAMPLE_BATCH):
        with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bf16(torch.device("cpu"))):
            images.append(model.sample(part, steps).float())
    seconds = time.perf_counter() - started_at
    values = scorer.score(encode(torch.cat(images)))
    return {"score": round(values["score"], 2), "samples_per_second": round(options.samples / seconds, 2)}


if __name__ == "__main__":
    main()
