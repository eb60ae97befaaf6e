"""Train the starters and write their folders: python packages/starters/make.py icons-64 [avatars-64 ...] [--runs DIR]

A finished run is not trained again, so that a folder can be written anew. Trains on all cores, one starter
after another; the minutes of each are in `STARTERS`. Weights are stored as float16.
"""

import argparse
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sets import starter_set

import cardigan
from cardigan.config_parts import DataConfig
from cardigan.data.datasets import example_pixels
from cardigan.experiment.nearest_starter import EXAMPLE_SIDE, feature_statistics
from cardigan.exports.anonymize import anonymized
from cardigan.exports.card import model_card
from cardigan.figures.grid import make_grid, png_bytes
from cardigan.files import atomic
from cardigan.files.sha256 import file_sha256
from cardigan.metrics.evaluate import evaluate, generator_sampler
from cardigan.metrics.reference_loader import load_reference
from cardigan.models.discriminator_file import DISCRIMINATOR_FILE, write_discriminator
from cardigan.models.hub import CARD_FILE
from cardigan.models.pretrained import write_pretrained
from cardigan.models.quantize import fake_quantize
from cardigan.models.run_networks import load_networks
from cardigan.models.sampling import sample_keys, sample_pixels
from cardigan.models.snapshot import snapshot_metadata, write_snapshot
from cardigan.models.starters import FACTS_FILE, PREVIEW_FILE

PACKAGE = Path(__file__).parent / "cardigan_starters"
NUM_SAMPLES, NUM_FEATURE_IMAGES, NUM_PREVIEWS = 2_000, 512, 24


@dataclass(frozen=True)
class Plan:
    """How a starter is trained, and what is said about its images."""

    images: str
    """Name of the set in `sets.py`."""
    title: str
    license: str
    attribution: str
    settings: dict[str, Any]
    """Keywords of `cardigan.train`."""


STARTERS = {
    "icons-64": Plan(
        "icons",
        "emoji with transparency: faces, people, animals, food, things, flags",
        "CC-BY-4.0",
        "Twemoji by Twitter, Inc and other contributors (CC BY 4.0); Noto Emoji by Google (Apache-2.0)",
        {"minutes": 60},
    ),
    "avatars-64": Plan(
        "avatars",
        "cartoon faces in three styles",
        "CC-BY-4.0",
        "Adventurer (CC BY 4.0) and Lorelei (CC0 1.0) by Lisa Wischofsky, Micah by Micah Lanier (CC BY 4.0); drawn by "
        "DiceBear",
        {"minutes": 60},
    ),
    "letters-32": Plan(
        "letters",
        "digits and capital letters of 29 typefaces, by class",
        "OFL-1.1",
        "29 typefaces of Fontsource under the SIL Open Font License 1.1 (packages/starters/sets.py names them)",
        {"recipe": "mnist", "images": 1_000_000, "overrides": {"data.labels": "folders"}},
    ),
    "textures-64": Plan(
        "textures",
        "colored textures by class: clouds, cells, waves, wood, bricks",
        "CC0-1.0",
        "drawn by packages/starters/sets.py",
        {"minutes": 30, "overrides": {"conditional": True, "data.labels": "folders"}},
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=sorted(STARTERS))
    parser.add_argument("--runs", type=Path, default=Path("runs/starters"))
    options = parser.parse_args()
    for name in options.names:
        plan, run = STARTERS[name], options.runs / name
        if not (run / "report.html").exists():  # a finished run has a report
            done = cardigan.train(starter_set(plan.images), out=run, resume=run.exists(), **plan.settings)
            if done.stopped_by not in {"images", "minutes"}:
                raise SystemExit(f"{run} was stopped ({done.stopped_by}): the same command continues it.")
        write_starter(name, plan, run)
        print(PACKAGE / name)


def write_starter(name: str, plan: Plan, run: Path) -> None:
    """Write the folder of a starter from its run; an older one is replaced."""
    networks = load_networks(run)
    snapshot = anonymized(networks.snapshot)
    preview = sample_pixels(snapshot, sample_keys(NUM_PREVIEWS, 0))

    def card(hashes: Mapping[str, str]) -> str:
        stored = replace(networks.snapshot, generator=fake_quantize(networks.snapshot.generator, "float16"))
        text = model_card(stored, run, hashes, data_license=plan.license, weights="float16")
        return text.replace("## License of the data\n", f"## License of the data\n\n{plan.attribution}.\n")

    folder = PACKAGE / name
    if folder.exists():
        shutil.rmtree(folder)
    files = {
        PREVIEW_FILE: png_bytes(make_grid(preview)),
        FACTS_FILE: (json.dumps(facts(plan, run), indent=1) + "\n").encode(),
    }
    write_pretrained(folder, lambda path: write_snapshot(path, snapshot, "float16"), card, files)
    metadata = snapshot_metadata(snapshot.config, snapshot.spec, snapshot.images_seen)
    write_discriminator(folder / DISCRIMINATOR_FILE, networks.discriminator, metadata, "float16")
    finish_card(folder)


def finish_card(folder: Path) -> None:
    """Put into a starter's card what only its folder knows: the command, the score, and the discriminator's hash."""
    path = folder / CARD_FILE
    known, text = json.loads((folder / FACTS_FILE).read_text()), path.read_text()
    samples = f"{NUM_SAMPLES:,} samples to the training images"
    score = f"Frechet distance over EfficientNet-Lite2: {known['score']:g} ({samples})."
    for start, content, end in (
        (r"## Metrics\n\n", score, r"\n\n## "),
        (r"## Reproduce\n\n```\n", known["command"], r"\n```"),
    ):
        text = re.sub(f"({start}).*?({end})", rf"\g<1>{content}\g<2>", text, count=1, flags=re.DOTALL)
    row = f"| {DISCRIMINATOR_FILE} | `{file_sha256(folder / DISCRIMINATOR_FILE)}` |\n"
    if DISCRIMINATOR_FILE not in text:
        text = re.sub(r"(\| model\.safetensors \|[^\n]*\n)", rf"\g<1>{row}", text, count=1)
    atomic.write_bytes(path, text.encode())


def facts(plan: Plan, run: Path) -> dict[str, Any]:
    """Return what `cardigan starters` says."""
    snapshot = load_networks(run).snapshot
    reference = load_reference(snapshot.config, run)
    everything = replace(reference, holdout=reference.train, holdout_labels=reference.train_labels, split="train")
    report = evaluate(
        generator_sampler(snapshot, everything), everything, None, NUM_SAMPLES, ("frechet",), baseline=False
    )
    features = feature_statistics(
        example_pixels(DataConfig(source=str(starter_set(plan.images))), NUM_FEATURE_IMAGES, EXAMPLE_SIDE)
    )
    spec = snapshot.spec
    return {
        "title": plan.title,
        "height": spec.height,
        "width": spec.width,
        "channels": spec.channels,
        "class_names": list(spec.class_names),
        "license": plan.license,
        "attribution": plan.attribution,
        "images_seen": snapshot.images_seen,
        "score": round(next(value.value for key, value in report.metrics.items() if key.startswith("f")), 1),
        "command": f"python packages/starters/make.py {run.name}",
        "features": [round(value, 3) for value in features.tolist()],
    }


if __name__ == "__main__":
    main()
