"""Train on few images from a trained model, with and without the cross-domain correspondence, and compare variety.

    python benchmarks/few_images.py --parent runs/avatars --set micah-1000-64 [--counts 20,100] [--weights 0,1000]
                                    [--images 8000] [--seeds 0,1,2] [--settings '{"augment.operations": ""}']
                                    [--name plain] [--out runs/few-images]

Sets are made by `image_sets.py`. A run sees COUNT images of the set. Distances, precision and recall are against all
images of the set, most of which the run has never seen. `pairwise_distance` is the mean feature distance between two
samples, `intra_cluster_distance` that between samples nearest to the same training image. The parent's distance is
printed first; `set_pairwise_distance` is that of the real images. Seeds other than that of the parent begin with a new
discriminator, if it is on pretrained features. A run that is there already is not trained again.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cardigan
from cardigan.config import Config
from cardigan.metrics.evaluate import evaluate, generator_sampler
from cardigan.metrics.reference import Reference, array_sampler
from cardigan.metrics.reference_loader import load_reference
from cardigan.models.snapshot import read_snapshot
from image_sets import image_set

METRICS = ("frechet", "kernel", "prdc")
OWN = ("variety", "memorization")
"""Metrics that compare samples with each other and with the few training images."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parent", type=Path, required=True)
    parser.add_argument("--set", default="micah-1000-64")
    parser.add_argument("--counts", default="20,100")
    parser.add_argument("--weights", default="0,1000", help="of objective.correspondence")
    parser.add_argument("--images", type=int, default=8_000)
    parser.add_argument("--seeds", default="", help="default: that of the parent")
    parser.add_argument("--settings", type=json.loads, default={})
    parser.add_argument("--name", default="")
    parser.add_argument("--samples", type=int, default=1_000)
    parser.add_argument("--out", type=Path, default=Path("runs/few-images"))
    options = parser.parse_args()
    parent = read_snapshot(options.parent)
    whole = whole_set(parent.config)
    print(
        json.dumps({"of": "parent", **measured(generator_sampler(parent, whole), whole, ("variety",), options.samples)})
    )
    for count in map(int, options.counts.split(",")):
        for weight in map(float, options.weights.split(",")):
            for seed in options.seeds.split(","):
                print(json.dumps(row(options, count, weight, seed)), flush=True)


def row(options: argparse.Namespace, count: int, weight: float, seed: str) -> dict[str, Any]:
    """Train one run unless it is there, and return its metrics."""
    label = f"-{options.name}" if options.name else ""
    run = options.out / f"{options.set}-{count}-{weight:g}{label}{f'-{seed}' if seed else ''}"
    if not run.exists():
        settings = {
            **{"data.max_images": count, "data.holdout": 0, "objective.correspondence": weight},
            **({"seed": int(seed)} if seed else {}),
            **options.settings,
        }
        cardigan.train(
            image_set(options.set), images=options.images, start_from=options.parent, overrides=settings, out=run
        )
    snapshot = read_snapshot(run)
    few = load_reference(snapshot.config, run)
    whole = whole_set(snapshot.config)
    sampler = generator_sampler(snapshot, few)
    values = {
        **measured(sampler, whole, METRICS, options.samples),
        **measured(sampler, few, OWN, options.samples),
        "set_pairwise_distance": of_real(whole, options.samples),
    }
    return {"of": run.name, "images": snapshot.images_seen, **values}


def whole_set(config: Config) -> Reference:
    """Return a reference of all images of the set that a run was trained on a part of."""
    return load_reference(replace(config, data=replace(config.data, max_images=0, holdout=0)))


def measured(sampler: Any, reference: Reference, metrics: tuple[str, ...], samples: int) -> dict[str, float]:
    report = evaluate(sampler, reference, None, samples, metrics, baseline=False)
    return {name: round(value.value, 4) for name, value in report.metrics.items()}


def of_real(reference: Reference, samples: int) -> float:
    """Return the mean feature distance between two real images of the set."""
    count = min(samples, len(reference.train))
    return measured(array_sampler(reference.train[:count]), reference, ("variety",), count)["pairwise_distance"]


if __name__ == "__main__":
    main()
