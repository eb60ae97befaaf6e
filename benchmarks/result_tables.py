"""The tables of docs/results.md, one command each; prints one line of JSON per run, and writes them to --out.

    python benchmarks/result_tables.py TABLE [options]

    time           [--seeds 0,1,2]  `fd_digits` of `mnist` at 30 s, 1, 2, 5 and 10 minutes
    evaluation     [--recipe R]     metrics of `cardigan evaluate`, 10,000 samples (`mnist` 2 minutes, others whole)
    nn-error       [--minutes 10]   1-NN test error of class-conditional digits, at 50,000 samples and more
    resolutions    [--seeds 0]      1-NN test error and `fd_digits` of real digits, resized to a size and back
    stacked-mnist  [--minutes 20]   modes and KL divergence of stacked MNIST, 26,000 samples
    ablation       [--images N]     the same for each loss and set of penalties, at equal images
    linear-probe   [--model RUN]    a linear classifier on the features of an unconditional D
    small-dataset  [--images N]     100 and 1,000 digits (--digits), with and without augmentation (--augmentation)
    collapse       [--recipe R]     ten seeds (or --seeds with more than three): last score over best, and faults

Runs are kept under --runs and reused: an interrupted table continues.
"""

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import cardigan
from cardigan.config_parts import DataConfig
from cardigan.data.mnist import load_mnist
from cardigan.data.resize import to_training_shape
from cardigan.explore.features import discriminator_features, linear_probe_error
from cardigan.metrics.digits import digit_features, digit_frechet_distance, to_mnist_shape
from cardigan.metrics.evaluate import evaluate, generator_sampler
from cardigan.metrics.neighbors import nn_errors
from cardigan.metrics.reference_loader import load_reference
from cardigan.metrics.statistics import mean_with_error
from cardigan.models.run_networks import load_networks, untrained_networks
from cardigan.models.snapshot import read_snapshot
from cardigan.pixels import encode
from cardigan.recipes import config_for
from cardigan.rng import stream
from cardigan.run.journal import Event, read_events

TIMES = (0.5, 1.0, 2.0, 5.0, 10.0)
PENALTIES: dict[str, dict[str, Any]] = {
    "R1+R2": {},
    "R1": {"objective.penalties.r2": 0.0},
    "R2": {"objective.penalties.r1": 0.0},
    "none": {"objective.penalties.r1": 0.0, "objective.penalties.r2": 0.0, "objective.penalty_interval": 1},
}
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "DiffAugment": {"augment.operations": "translation,cutout", "augment.probability": 1.0},
    "ADA": {
        "augment.operations": "integer-translation,isotropic-scale,rotate,anisotropic-scale,fractional-translation",
        "augment.target": 0.6,
        "augment.ramp_images": 100_000,
    },
}
SIDES = (28, 64, 32, 24, 20, 16, 14)
SIGNALS = {"SIGINT", "SIGTERM"}
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=sorted(TABLES))
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--images", type=int)
    parser.add_argument("--recipe")
    parser.add_argument("--model", type=Path, help="evaluate this run instead of training one")
    parser.add_argument("--samples", type=int, action="append", help="number of samples; may be repeated")
    parser.add_argument(
        "--truncation", type=float, action="append", help="1 samples as trained, 0 gives the average; may be repeated"
    )
    parser.add_argument("--digits", type=int, action="append", help="number of training digits; may be repeated")
    parser.add_argument(
        "--augmentation", choices=AUGMENTATIONS, action="append", help="augmentation to use; may be repeated"
    )
    parser.add_argument(
        "--set",
        type=json.loads,
        default={},
        help="additional settings of every run, as JSON by dotted name",
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/tables"))
    parser.add_argument("--out", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    rows = []
    for row in TABLES[options.table](options):
        rows.append(row | {"set": options.set} if options.set else row)
        print(json.dumps(rows[-1]), flush=True)
        if options.out is not None:
            options.out.write_text(json.dumps(rows, indent=1) + "\n")


def finished_run(
    options: argparse.Namespace,
    table: str,
    source: str,
    recipe: str,
    settings: Row,
    minutes: float | None,
    images: int | None,
) -> Path:
    """Return a finished run of these settings; train or resume it if necessary. A signal stops the whole table."""
    settings = {**settings, **options.set}
    parts = [table, recipe, *(f"{key.split('.')[-1]}={value}" for key, value in settings.items())]
    path = options.runs / "-".join([*parts, f"{minutes:g}min" if minutes else f"{images}"]).replace(",", "+")
    events = read_events(path / "journal.jsonl") if (path / "journal.jsonl").exists() else []
    if has_failed(path) or (events and events[-1].kind == "stop" and events[-1].values["reason"] not in SIGNALS):
        return path
    try:
        run = cardigan.train(
            source, recipe=recipe, out=path, minutes=minutes, images=images, overrides=settings, resume=bool(events)
        )
    except cardigan.CardiganError:
        if not has_failed(path):
            raise
        return path  # a failed run is a result too
    if run.stopped_by in SIGNALS:
        raise KeyboardInterrupt
    return path


def has_failed(path: Path) -> bool:
    """Return whether a run ended with a non-finite number."""
    events = read_events(path / "journal.jsonl") if (path / "journal.jsonl").exists() else []
    return bool(events) and events[-1].kind == "fault" and events[-1].values["name"] == "non-finite"


def scores(path: Path) -> list[Event]:
    return [
        event for event in read_events(path / "journal.jsonl") if event.kind == "checkpoint" and "score" in event.values
    ]


def measure(path: Path, count: int, metrics: tuple[str, ...] | None, seed: int = 0, truncation: float = 1.0) -> Row:
    """Return the metrics of a run's generator and its training time."""
    snapshot = read_snapshot(path)
    reference = load_reference(snapshot.config)
    report = evaluate(
        generator_sampler(snapshot, reference, seed, truncation),
        reference,
        num_samples=count,
        metrics=metrics,
        baseline=False,
    )
    trained_for = read_events(path / "journal.jsonl")[-1].elapsed_seconds if (path / "journal.jsonl").exists() else None
    return {
        "samples": count,
        "seconds": trained_for,
        **{name: [measure.value, measure.standard_error] for name, measure in report.metrics.items()},
    }


def time_table(options: argparse.Namespace) -> Iterator[Row]:
    minutes, recipe = options.minutes or TIMES[-1], options.recipe or "mnist"
    for seed in options.seeds:
        settings = {"seed": seed, "checkpoint_every_images": 25_000}
        found = scores(finished_run(options, "time", "mnist", recipe, settings, minutes, None))
        for moment in TIMES:
            before = [event for event in found if event.elapsed_seconds <= moment * 60]
            if before and moment <= minutes:
                last = before[-1]
                yield {
                    "recipe": recipe,
                    "seed": seed,
                    "minutes": moment,
                    "at": round(last.elapsed_seconds, 1),
                    "images": last.images_seen,
                    "score": last.values["score"],
                }


def evaluation(options: argparse.Namespace) -> Iterator[Row]:
    recipe = options.recipe or "mnist"
    source = "stacked-mnist" if recipe == "stacked-mnist" else "mnist"
    minutes = options.minutes or (2.0 if recipe == "mnist" and options.images is None else None)
    images = None if minutes else options.images or config_for(source, recipe).images
    for seed in options.seeds:
        path = finished_run(options, "evaluation", source, recipe, {"seed": seed}, minutes, images)
        yield {"recipe": recipe, "seed": seed, "images": read_snapshot(path).images_seen, **measure(path, 10_000, None)}


def nn_error(options: argparse.Namespace) -> Iterator[Row]:
    yield from train_and_evaluate(
        options, "nn-error", "mnist", options.recipe or "mnist-conditional", 10, "nn_error", 50_000
    )


def resolutions(options: argparse.Namespace) -> Iterator[Row]:
    train, test = load_mnist("train"), load_mnist("test")
    for seed, side in itertools.product(options.seeds, SIDES):
        data = DataConfig(height=side, width=side, resize="stretch")
        resized = to_mnist_shape(encode(to_training_shape(train.pixels, data)), data)
        different = torch.randperm(len(train), generator=stream(seed, "different digits", 0))[:50_000]
        replaced = torch.randint(len(train), (50_000,), generator=stream(seed, "digits drawn again", 0))
        for name, chosen in {"different": different, "with replacement": replaced}.items():
            error, standard_error = mean_with_error(
                nn_errors(test.pixels, test.labels, [(resized[chosen], train.labels[chosen])])
            )
            distance = digit_frechet_distance(digit_features(resized[chosen[:5_000]]))
            yield {
                "seed": seed,
                "side": side,
                "digits": name,
                "nn_error": [error, standard_error],
                "distance": round(distance, 2),
            }


def stacked(options: argparse.Namespace) -> Iterator[Row]:
    yield from train_and_evaluate(
        options, "stacked-mnist", "stacked-mnist", options.recipe or "stacked-mnist", 20, "stacked_mnist", 26_000
    )


def train_and_evaluate(
    options: argparse.Namespace, table: str, source: str, recipe: str, minutes: float, metric: str, count: int
) -> Iterator[Row]:
    """Yield one metric per seed, number of samples and truncation. `minutes` and `count` are the defaults."""
    for seed in options.seeds:
        budget = None if options.images else options.minutes or minutes
        path = options.model or finished_run(options, table, source, recipe, {"seed": seed}, budget, options.images)
        for samples, truncation in itertools.product(options.samples or [count], options.truncation or [1.0]):
            snapshot = read_snapshot(path)
            row = {
                "seed": snapshot.config.seed,
                "recipe": snapshot.config.recipe,
                "images": snapshot.images_seen,
                "truncation": truncation,
            }
            yield {**row, **measure(path, samples, (metric,), seed, truncation)}


def ablation(options: argparse.Namespace) -> Iterator[Row]:
    images = options.images or 150_000
    for seed in options.seeds:
        for loss in ("relativistic", "non-saturating"):
            for penalties, changes in PENALTIES.items():
                settings = {"seed": seed, "objective.loss": loss, **changes}
                row = {"seed": seed, "loss": loss, "penalties": penalties, "images": images}
                path = finished_run(options, "ablation", "stacked-mnist", "stacked-mnist", settings, None, images)
                faults = [
                    event.values["name"] for event in read_events(path / "journal.jsonl") if event.kind == "fault"
                ]
                yield {
                    **row,
                    **measure(path, 26_000, ("stacked_mnist",), seed),
                    "faults": faults,
                    "failed": has_failed(path),
                }


def small_dataset(options: argparse.Namespace) -> Iterator[Row]:
    images = options.images or 200_000
    for count in options.digits or (100, 1_000):
        for seed in options.seeds:
            for name in options.augmentation or AUGMENTATIONS:
                settings = {"seed": seed, "conditional": False, "data.max_images": count, **AUGMENTATIONS[name]}
                path = finished_run(options, "small-dataset", "mnist", "mnist", settings, None, images)
                found, events = scores(path), read_events(path / "journal.jsonl")
                best = min(found, key=lambda event: event.values["score"])
                yield {
                    **{"digits": count, "augmentation": name, "seed": seed, "images": images},
                    **{
                        "best": round(best.values["score"], 2),
                        "best_at": best.images_seen,
                        "last": round(found[-1].values["score"], 2),
                    },
                    "faults": sorted({event.values["name"] for event in events if event.kind == "fault"}),
                    "scores": [[event.images_seen, round(event.values["score"], 2)] for event in found],
                    **measure(path, 2_000, ("memorization",), seed),
                }


def collapse(options: argparse.Namespace) -> Iterator[Row]:
    recipe, images = options.recipe or "mnist", options.images or 300_000
    source = "stacked-mnist" if recipe == "stacked-mnist" else "mnist"
    for seed in options.seeds if len(options.seeds) > 3 else range(10):
        settings = {"seed": seed, "on_failure": "stop"}
        path = finished_run(options, "collapse", source, recipe, settings, None, images)
        checkpoints, events = scores(path), read_events(path / "journal.jsonl")
        found = [event.values["score"] for event in checkpoints]
        faults = [event.values["name"] for event in events if event.kind == "fault"]
        reason = next((event.values["reason"] for event in events if event.kind == "stop"), "non-finite")
        yield {
            **{"recipe": recipe, "seed": seed, "images": events[-1].images_seen, "stopped_by": reason},
            **{
                "best": round(min(found), 3),
                "last": round(found[-1], 3),
                "last_over_best": round(found[-1] / min(found), 3),
                "faults": faults,
            },
            "seconds": round(events[-1].elapsed_seconds, 1),
            "scores": [
                [event.images_seen, round(event.elapsed_seconds, 1), round(event.values["score"], 3)]
                for event in checkpoints
            ],
        }


def probe(options: argparse.Namespace) -> Iterator[Row]:
    """The protocol of arXiv:1511.06434, section 5.1: all layers of D, max-pooled to 4x4, and one linear classifier."""
    train, test = load_mnist("train"), load_mnist("test")
    for seed in options.seeds:
        settings = {"seed": seed, "conditional": False}
        path = options.model or finished_run(
            options, "linear-probe", "mnist", "mnist", settings, options.minutes, options.images or 300_000
        )
        networks = load_networks(path)
        config = networks.snapshot.config
        if config.conditional:
            raise cardigan.CardiganError(
                f"{path} is class-conditional, but the probe needs an unconditional run: give another one."
            )
        pixels = [encode(to_training_shape(split.pixels, config.data)) for split in (train, test)]
        for name, feature_networks in {"D": networks, "random D": untrained_networks(networks), "pixels": None}.items():
            ours, theirs = (
                each.flatten(1).float() / 127.5 - 1
                if feature_networks is None
                else discriminator_features(feature_networks, each)
                for each in pixels
            )
            for labels in (100, 1_000, 60_000):
                chosen = torch.randperm(60_000, generator=stream(seed, "labelled", 0))[:labels]
                error = linear_probe_error(ours[chosen], train.labels[chosen], theirs, test.labels)
                yield {
                    "seed": seed,
                    "features": name,
                    "labels": labels,
                    "test_error": round(error, 4),
                    "width": ours.shape[1],
                }


TABLES = {
    **{
        "evaluation": evaluation,
        "time": time_table,
        "nn-error": nn_error,
        "resolutions": resolutions,
        "stacked-mnist": stacked,
        "ablation": ablation,
    },
    **{"linear-probe": probe, "small-dataset": small_dataset, "collapse": collapse},
}


if __name__ == "__main__":
    main()
