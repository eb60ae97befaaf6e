"""Train on a set from initial weights and from a trained model, and compare the scores after as many images.

    python benchmarks/start_from.py --parent runs/icons --set icons-google --max-images 300
                                    [--scratch-images 60000] [--images 12000] [--every 4000] [--seeds 0,1,2]
                                    [--settings '{"generator_optimizer.learning_rate": 1e-3}'] [--name slow]
                                    [--out runs/start-from]

Sets are made by `image_sets.py`. The quick score of each checkpoint is in the journal of its run; authenticity and
duplicates are those of `cardigan evaluate` for the last checkpoint. A run that is there already is not trained again.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import cardigan
from cardigan.run.directory import RunDirectory
from image_sets import image_set
from images import measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parent", type=Path, required=True)
    parser.add_argument("--set", default="icons-google")
    parser.add_argument("--max-images", type=int, default=300)
    parser.add_argument("--scratch-images", type=int, default=60_000, help="0 leaves training from nothing out")
    parser.add_argument("--images", type=int, default=12_000, help="training images from the parent; 0 leaves it out")
    parser.add_argument("--every", type=int, default=4_000)
    parser.add_argument("--seeds", default="0", help="of training from nothing; other runs have the seed of the parent")
    parser.add_argument("--settings", type=json.loads, default={})
    parser.add_argument("--name", default="")
    parser.add_argument("--out", type=Path, default=Path("runs/start-from"))
    options = parser.parse_args()
    for seed in options.seeds.split(","):
        if options.scratch_images:
            report(options, "scratch", int(seed), options.scratch_images, None)
        if options.images:
            report(options, "from", int(seed), options.images, options.parent)


def report(options: argparse.Namespace, start: str, seed: int, images: int, parent: Path | None) -> None:
    """Train one run unless it is there, and print its scores and the metrics of its end as one line of JSON."""
    label = f"-{options.name}" if options.name else ""
    run = options.out / f"{options.set}-{options.max_images}-{start}{label}-{seed}"
    if not run.exists():
        settings = {
            **{"checkpoint_every_images": options.every, "sample_every_images": options.every},
            **({"data.max_images": options.max_images} if options.max_images else {}),
            **({} if parent is not None else {"seed": seed}),
            **options.settings,
        }
        cardigan.train(image_set(options.set), images=images, overrides=settings, out=run, start_from=parent)
    scores = {
        event.images_seen: round(event.values["score"], 1)
        for event in cardigan.read_events(RunDirectory(run).journal)
        if event.kind == "checkpoint" and "score" in event.values
    }
    facts: dict[str, Any] = {"start": start + label, "seed": seed, "scores": scores, **measure(run, 2_000)}
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
