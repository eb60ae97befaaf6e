"""Provoke faults in the recipe `images` and tell which of them the health monitor names, and when.

    python benchmarks/provoked_faults.py [--set avatars-1000-64] [--faults fast-generator,...] [--images 24000]
                                         [--seed 0] [--out runs/faults]

Sets are made by `image_sets.py`. Training goes on after a fault. The last line of the table is the recipe itself, which
should show none.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import cardigan
from cardigan.run.journal import read_events
from image_sets import image_set

FAULTS: dict[str, dict[str, Any]] = {
    "fast-generator": {"generator_optimizer.learning_rate": 0.1},
    "deaf-discriminator": {"discriminator_optimizer.learning_rate": 1e-7},
    "fast-discriminator": {"discriminator_optimizer.learning_rate": 3e-2},
    "no-penalties": {
        "objective.penalties": {},
        "objective.penalty_interval": 1,
        "discriminator_optimizer.learning_rate": 3e-3,
    },
    "few-images": {"data.max_images": 32, "augment.operations": "", "augment.probability": 0.0, "data.holdout": 64},
    "one-latent": {"latent.size": 1},
    "none": {},
}
"""Settings that break the game, by name."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="avatars-1000-64")
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--images", type=int, default=24_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/faults"))
    options = parser.parse_args()
    print("| fault | score at the end | named by the monitor, after images |\n|---|---|---|", flush=True)
    for name in options.faults.split(","):
        print(row(options, name), flush=True)


def fault_settings(name: str, images: int, seed: int) -> dict[str, Any]:
    """Return the settings of a run with this fault, which goes on after it."""
    cadence = {"checkpoint_every_images": images // 4, "sample_every_images": images // 12}
    return {**cadence, "on_failure": "warn", "seed": seed, **FAULTS[name]}


def row(options: argparse.Namespace, name: str) -> str:
    """Return the row of a fault; a run that is there already is not trained again."""
    run = options.out / f"{options.set}-{name}-{options.seed}"
    if not run.exists():
        settings = fault_settings(name, options.images, options.seed)
        cardigan.train(image_set(options.set), recipe="images", images=options.images, overrides=settings, out=run)
    events = read_events(run / "journal.jsonl")
    scores = [event.values["score"] for event in events if event.kind == "checkpoint" and "score" in event.values]
    named: dict[str, int] = {}
    for event in events:
        if event.kind == "fault":
            named.setdefault(event.values["name"], event.images_seen)
    listed = ", ".join(f"{fault} ({images:,})" for fault, images in named.items()) or "nothing"
    settings = "" if name == "none" else f" `{json.dumps(FAULTS[name])}`"
    return f"| {name}{settings} | {f'{scores[-1]:.0f}' if scores else 'none'} | {listed} |"


if __name__ == "__main__":
    main()
