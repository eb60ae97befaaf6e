"""Training time until `mnist` has the `fd_digits` that its recipe promises, in two evaluations in a row.

The promise is the score after two minutes on a CPU. The time is that of a whole `cardigan.train`: reading the digits,
graph capture, sample grids, checkpoints and their quick scores are included.
"""

import re
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch

import cardigan
from cardigan.metrics.digits import digit_features, digit_frechet_distance, to_mnist_shape
from cardigan.recipes import RECIPES
from cardigan.run.journal import Event
from gpu_check.part import Result, Settings
from gpu_check.small_runs import scripted_scores
from recipe_scores import SAMPLES

EVERY = 10_000
"""Images between two evaluations."""
MAX_IMAGES = 600_000
TARGET_SECONDS = 20.0
IN_A_ROW = 2
TINY = {"batch_size": 16, "generator.width": 4, "discriminator.width": 4}


class PromiseReached(Exception):
    """The distance was small enough twice in a row."""


@dataclass
class PromiseCheck:
    """Evaluates every checkpoint as `recipe_scores.py` evaluates a finished run."""

    run: Path
    device: str
    promise: float
    samples: int
    began: float
    evaluation_seconds: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        """Handle a journal event; raises PromiseReached."""
        if event.kind != "checkpoint" or not event.images_seen:
            return
        elapsed, started = time.monotonic() - self.began, time.monotonic()
        distance = round(self.distance(), 2)
        without, self.evaluation_seconds = (
            elapsed - self.evaluation_seconds,
            self.evaluation_seconds + time.monotonic() - started,
        )
        seconds = {"seconds": round(without, 2), "seconds_with_evaluation": round(elapsed, 2)}
        self.rows.append({"images": event.images_seen, "distance": distance, **seconds})
        if self.is_reached():
            raise PromiseReached

    def distance(self) -> float:
        """Return the `fd_digits` of the run's current generator."""
        model = cardigan.load(self.run).to(self.device)
        images = torch.from_numpy(model.sample(self.samples, seed=1)).permute(0, 3, 1, 2)
        return digit_frechet_distance(digit_features(to_mnist_shape(images, model.config.data)))

    def is_reached(self) -> bool:
        last = [row["distance"] for row in self.rows[-IN_A_ROW:]]
        return len(last) == IN_A_ROW and max(last) <= self.promise


def run(settings: Settings, result: Result) -> None:
    promised = promise()
    # A tiny run learns nothing. It only tests that the end is detected.
    accepted = float("inf") if settings.tiny else promised
    out, every = settings.folder / "run", 160 if settings.tiny else EVERY
    check = PromiseCheck(out, settings.device, accepted, 300 if settings.tiny else SAMPLES, result.began)
    reached = False
    changes = {"device": settings.device, "checkpoint_every_images": every, **(TINY if settings.tiny else {})}
    images = every * 10 if settings.tiny else MAX_IMAGES
    try:
        with scripted_scores({}, otherwise=1.0) if settings.tiny else nullcontext():
            cardigan.train("mnist", out=out, images=images, overrides=changes, on_event=check)
    except PromiseReached:
        reached = True
    result.add(
        promised_distance=promised,
        reached=reached,
        evaluation_seconds=round(check.evaluation_seconds, 2),
        rows=check.rows,
    )
    last = check.rows[-1]
    text = f"`mnist` to an `fd_digits` of {promised:g} in {TARGET_SECONDS:g} s, including imports, excluding evaluation"
    if settings.tiny:
        result.check(reached and len(check.rows) == IN_A_ROW, "the run did not end at the second evaluation")
        result.without_target(text, last["seconds"])
    else:
        result.target(text, last["seconds"] if reached else None, at_most=TARGET_SECONDS)


def promise() -> float:
    """Return the `fd_digits` that the recipe promises."""
    found = re.search(r"fd_digits ([\d.]+)", RECIPES["mnist"].expected_score)
    assert found, f"the recipe mnist promises no fd_digits: {RECIPES['mnist'].expected_score}"
    return float(found[1])
