"""Train recipes for images of any kind in turn, for equal time on this machine, and compare what they generate.

    python benchmarks/images.py --sets icons,avatars-1000-64 --recipes images-dcgan,images --minutes 30
                                --seeds 0,1,2 [--set '{"ema.half_life_images": 20000}'] [--name short-ema]
                                [--out runs/images] [--samples 2000]
    python benchmarks/images.py --out runs/images --pairs 10      # writes blind.html, for a person to vote
    python benchmarks/images.py --minutes 30,60                   # each run is measured, continued and measured again

Sets are made by `image_sets.py`. Each run is `cardigan train SET --recipe RECIPE --minutes M` and nothing else, or with
the settings of --set under the name of --name. A finished run is not trained again, and one that was killed is
continued. Metrics are computed once, of the last checkpoint's EMA generator: distances, precision, recall and Nyquist
energy against all images of the set, authenticity and duplicates as `cardigan evaluate` does. The table has the median
of the seeds and their range. The extractor is EfficientNet-Lite2, which no discriminator learns from.
"""

import argparse
import json
import shutil
import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

import cardigan
from blind_page import blind_page
from cardigan.config import BUILTIN_SOURCES
from cardigan.files import atomic
from cardigan.metrics.evaluate import MIN_SAMPLES, evaluate, generator_sampler
from cardigan.metrics.reference import Reference, Sampler, array_sampler
from cardigan.metrics.reference_loader import load_reference
from cardigan.models.snapshot import read_snapshot
from image_sets import image_set

AGAINST_ALL = ("frechet", "kernel", "sliced_wasserstein", "checkerboard", "prdc")
COPYING = ("memorization",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="icons")
    parser.add_argument("--recipes", default="images-dcgan,images")
    parser.add_argument("--minutes", default="30", help="training time; of several, each continues the one before")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--set", type=json.loads, default={}, help="settings to override, as JSON by dotted name")
    parser.add_argument("--name", default="", help="what runs with --set are called")
    parser.add_argument("--samples", type=int, default=2_000)
    parser.add_argument("--out", type=Path, default=Path("runs/images"))
    parser.add_argument("--pairs", type=int, default=0, help="write a page with this many pairs of sheets to vote on")
    options = parser.parse_args()
    if options.pairs:
        print(blind_page(options.out, options.pairs))
        return
    rows = [
        row(options.out, name, recipe, int(seed), minutes, options.set, options.name, options.samples)
        for seed in options.seeds.split(",")
        for name in options.sets.split(",")
        for recipe in options.recipes.split(",")
        for minutes in pairwise([0.0, *sorted(float(each) for each in options.minutes.split(","))])
    ]
    print(table(rows))


def row(
    out: Path,
    name: str,
    recipe: str,
    seed: int,
    earlier_and_minutes: tuple[float, float],
    settings: dict[str, Any],
    label: str,
    samples: int,
) -> dict[str, Any]:
    """Train and evaluate one run, unless its result is there, and return the result.

    The run of the earlier minutes is continued where there is one.
    """
    earlier, run = (
        out / f"{name}-{minutes:g}min-{recipe}{f'-{label}' if label else ''}-{seed}" for minutes in earlier_and_minutes
    )
    minutes, result = earlier_and_minutes[1], run / "result.json"
    if not result.exists():
        if not is_finished(run, minutes):
            if earlier.exists() and not run.exists():
                shutil.copytree(earlier, run, ignore=shutil.ignore_patterns("result.json"))
            settings = {**settings, "seed": seed}
            source, resume = name if name in BUILTIN_SOURCES else image_set(name), run.exists()
            cardigan.train(source, recipe=recipe, minutes=minutes, overrides=settings, out=run, resume=resume)
        facts = {"set": name, "minutes": minutes, "recipe": f"{recipe} {label}".strip(), "seed": seed}
        atomic.write_bytes(result, json.dumps({**facts, **measure(run, samples)}, indent=1).encode())
    found = json.loads(result.read_text())
    print(json.dumps(found), flush=True)
    return found


def is_finished(run: Path, minutes: float) -> bool:
    """Return whether a run has been trained to its end: one that was killed is continued, not measured."""
    if not run.exists():
        return False
    opened = cardigan.Run.open(run)
    return opened.stopped_by == "images" or (opened.stopped_by == "minutes" and opened.config.minutes == minutes)


def measure(run: Path, samples: int) -> dict[str, Any]:
    """Return the metrics of a run's last checkpoint, the images it has seen and its real baselines."""
    snapshot = read_snapshot(run)
    values = judge(partial(generator_sampler, snapshot), load_reference(snapshot.config, run), samples)
    return {"images": snapshot.images_seen, **values}


def judge(sampler: Callable[[Reference], Sampler], reference: Reference, samples: int) -> dict[str, float]:
    """Return the metrics of what `sampler` makes for a reference, and their real baselines.

    Images are compared with all of a set, digits with the test digits.
    """
    everything = reference if reference.split == "test" else all_images(reference)
    values: dict[str, float] = {}
    for metrics, real in ((AGAINST_ALL, everything), (COPYING, reference)):
        report = evaluate(sampler(real), real, None, samples, metrics, baseline=False)
        values |= {key: value.value for key, value in report.metrics.items()}
    count = min(samples, len(reference.train))
    baseline = evaluate(
        array_sampler(reference.train[:count]), everything, None, count, ("checkerboard",), baseline=False
    )
    values["real_nyquist_energy"] = baseline.metrics["nyquist_energy"].value
    values |= real_authenticity(reference)
    return {key: round(value, 4) for key, value in values.items()}


def all_images(reference: Reference) -> Reference:
    """Return a reference of all images of a set, training and held-out ones."""
    if reference.holdout is reference.train:
        return reference
    pixels, labels = torch.cat([reference.train, reference.holdout]), [reference.train_labels, reference.holdout_labels]
    return replace(
        reference,
        holdout=pixels,
        holdout_labels=torch.cat(labels),
        split="all",
        fingerprint=f"{reference.fingerprint} all",
    )


def real_authenticity(reference: Reference) -> dict[str, float]:
    """Return the authenticity of held-out images, or nothing where too few are held out."""
    count = len(reference.holdout)
    if reference.holdout is reference.train or count < MIN_SAMPLES:
        return {}
    report = evaluate(array_sampler(reference.holdout), reference, None, count, COPYING, baseline=False)
    return {"real_authenticity": report.metrics["authenticity"].value}


def table(rows: list[dict[str, Any]]) -> str:
    """Return the results as a Markdown table, with the median and the range over seeds."""
    keys = dict.fromkeys(key for row in rows for key in row)
    columns = [key for key in keys if key not in {"set", "minutes", "recipe", "seed"}]
    lines = ["| set | minutes | recipe | " + " | ".join(columns) + " |", "|" + "---|" * (3 + len(columns))]
    for key in dict.fromkeys((row["set"], row["minutes"], row["recipe"]) for row in rows):
        group = [row for row in rows if (row["set"], row["minutes"], row["recipe"]) == key]
        cells = [spread([row[column] for row in group if column in row]) for column in columns]
        lines.append("| " + " | ".join([key[0], f"{key[1]:g}", key[2], *cells]) + " |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    if not values:
        return ""
    median = f"{statistics.median(values):.4g}"
    return median if len(values) == 1 else f"{median} ({min(values):.4g}-{max(values):.4g})"


if __name__ == "__main__":
    main()
