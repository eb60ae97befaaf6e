"""Train a digit recipe and print the `fd_digits` that it reaches.

    python benchmarks/recipe_scores.py [--recipe mnist] [--minutes M] [--images N] [--seeds 0,1,2] [--out runs/scores]
                                 [--set '{"data.height": 32}']

`fd_digits` is the Frechet distance over the 128 features of the embedded digit classifier, between 5,000 samples
(seed 1) and the 10,000 test digits. The real baseline is the distance of 5,000 training digits. Without --minutes and
--images a run has the recipe's budget. Only for single digits: for `stacked-mnist` see benchmarks/result_tables.py
stacked-mnist, for `images` and `images-dcgan` see docs/results.md, "Icons".
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch

import cardigan
from cardigan.metrics.digits import digit_features, digit_frechet_distance, predict_digits, to_mnist_shape

SAMPLES = 5_000
NON_DIGIT_RECIPES = {"stacked-mnist", "images", "images-dcgan"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="mnist")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--images", type=int)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=Path("runs/scores"))
    parser.add_argument("--set", type=json.loads, default={}, help="settings to override, as JSON by dotted name")
    options = parser.parse_args()
    if options.recipe in NON_DIGIT_RECIPES:
        parser.error(f"--recipe {options.recipe} is not evaluated with fd_digits: see the docstring of this file.")
    print(f"real baseline: {digit_frechet_distance(digit_features(cardigan.load_mnist('train').pixels[:SAMPLES])):.2f}")
    rows = [
        train_and_score(
            options.out / f"{options.recipe}-{seed}",
            options.recipe,
            options.minutes,
            options.images,
            {**options.set, "seed": int(seed)},
        )
        for seed in options.seeds.split(",")
    ]
    for row in rows:
        print(json.dumps(row))
    distances = [row["distance"] for row in rows]
    print(f"median distance {statistics.median(distances):.2f}, from {min(distances):.2f} to {max(distances):.2f}")


def train_and_score(
    out: Path, recipe: str, minutes: float | None, num_images: int | None, settings: dict[str, Any]
) -> dict[str, float]:
    """Train one run and return its score."""
    run = cardigan.train("mnist", recipe=recipe, minutes=minutes, images=num_images, overrides=settings, out=out)
    model = cardigan.load(run.path)
    images = torch.from_numpy(model.sample(SAMPLES, seed=1)).permute(0, 3, 1, 2)
    features = digit_features(to_mnist_shape(images, model.config.data))
    frequencies = torch.bincount(predict_digits(features), minlength=10) / SAMPLES
    distance = round(digit_frechet_distance(features), 2)
    return {
        "seed": run.config.seed,
        "images": run.images_seen,
        "distance": distance,
        "rarest_digit_frequency": round(float(frequencies.min()), 4),
    }


if __name__ == "__main__":
    main()
