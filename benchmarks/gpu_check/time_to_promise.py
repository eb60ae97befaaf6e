"""How long `mnist` trains until it has the `fd_digits` that its recipe promises, at two judgements in a row.

The promise is what two minutes on a CPU reach. This is a whole run of `cardigan.train`: reading the digits, recording,
sample sheets, checkpoints and their quick scores are all in the time.
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
"""Images between two judgements."""
MOST_IMAGES = 600_000
TARGET_SECONDS = 20.0
IN_A_ROW = 2
TINY = {"batch_size": 16, "generator.width": 4, "discriminator.width": 4}


class PromiseReached(Exception):
    """The distance was small enough, twice in a row."""


@dataclass
class Judging:
    """Judges every checkpoint as `recipe_scores.py` judges a finished run."""

    run: Path
    device: str
    promise: float
    samples: int
    began: float
    judging_seconds: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        """Take an event of the journal; raises PromiseReached."""
        if event.kind != "checkpoint" or not event.images_seen:
            return
        elapsed, started = time.monotonic() - self.began, time.monotonic()
        distance = round(self.distance(), 2)
        without, self.judging_seconds = (
            elapsed - self.judging_seconds,
            self.judging_seconds + time.monotonic() - started,
        )
        seconds = {"seconds": round(without, 2), "seconds_with_judging": round(elapsed, 2)}
        self.rows.append({"images": event.images_seen, "distance": distance, **seconds})
        if self.is_reached():
            raise PromiseReached

    def distance(self) -> float:
        """Return the `fd_digits` of the generator as it lies in the run."""
        model = cardigan.load(self.run).to(self.device)
        images = torch.from_numpy(model.sample(self.samples, seed=1)).permute(0, 3, 1, 2)
        return digit_frechet_distance(digit_features(to_mnist_shape(images, model.config.data)))

    def is_reached(self) -> bool:
        last = [row["distance"] for row in self.rows[-IN_A_ROW:]]
        return len(last) == IN_A_ROW and max(last) <= self.promise


def run(settings: Settings, result: Result) -> None:
    promised = promise()
    accepted = (
        float("inf") if settings.tiny else promised
    )  # a tiny run learns nothing: it shows that the end is noticed
    out, every = settings.folder / "run", 160 if settings.tiny else EVERY
    judging = Judging(out, settings.device, accepted, 300 if settings.tiny else SAMPLES, result.began)
    reached = False
    changes = {"device": settings.device, "checkpoint_every_images": every, **(TINY if settings.tiny else {})}
    images = every * 10 if settings.tiny else MOST_IMAGES
    try:
        with scripted_scores({}, otherwise=1.0) if settings.tiny else nullcontext():
            cardigan.train("mnist", out=out, images=images, overrides=changes, on_event=judging)
    except PromiseReached:
        reached = True
    result.add(
        promised_distance=promised,
        reached=reached,
        judging_seconds=round(judging.judging_seconds, 2),
        rows=judging.rows,
    )
    last = judging.rows[-1]
    text = f"`mnist` to an `fd_digits` of {promised:g} in {TARGET_SECONDS:g} s, imports included, judging not"
    if settings.tiny:
        result.check(reached and len(judging.rows) == IN_A_ROW, "the run did not end at the second judgement")
        result.without_target(text, last["seconds"])
    else:
        result.target(text, last["seconds"] if reached else None, at_most=TARGET_SECONDS)


def promise() -> float:
    """Return the `fd_digits` that the recipe promises."""
    found = re.search(r"fd_digits ([\d.]+)", RECIPES["mnist"].expected_score)
    assert found, f"the recipe mnist promises no fd_digits: {RECIPES['mnist'].expected_score}"
    return float(found[1])
