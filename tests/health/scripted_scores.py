"""A training run with given scores, so that it gets worse where a test needs it. torchrun also runs this file.

python -m torch.distributed.run --nproc-per-node 2 tests/health/scripted_scores.py OUT ON_FAILURE
"""

import sys
from dataclasses import replace
from pathlib import Path

import cardigan
from cardigan.experiment import build
from cardigan.experiment.finished_run import Run
from cardigan.training.recorder import Callbacks

CHECKPOINT_INTERVAL = 32
SMALL = {
    "batch_size": 16,
    "generator.width": 4,
    "discriminator.width": 4,
    "device": "cpu",
    "precision": "fp32",
    "checkpoint_every_images": CHECKPOINT_INTERVAL,
}
IMPROVING_SCORES = {CHECKPOINT_INTERVAL * index: 100.0 - 10 * index for index in range(1, 6)}
"""Five checkpoints that get better. The fifth, at 160 images, is the best."""


def train_with_scores(
    out: Path, scores: dict[int, list[float]], images: int, resume: bool = False, **changes: object
) -> Run:
    """Train. The checkpoint at n images gets the next score of scores[n], or 55 if none is left."""
    original = build.build_callbacks

    def scripted_callbacks(*arguments) -> Callbacks:
        def score(snapshot) -> dict[str, float]:
            remaining = scores.get(snapshot.images_seen, [])
            return {"score": remaining.pop(0) if remaining else 55.0}

        return replace(original(*arguments), evaluate=score)

    build.build_callbacks = scripted_callbacks
    try:
        return cardigan.train("mnist", out=out, images=images, resume=resume, overrides={**SMALL, **changes})
    finally:
        build.build_callbacks = original


def degrading_scores() -> dict[int, list[float]]:
    """Scores that improve until 160 images, then are over ten times worse twice; after a rollback they are normal."""
    return {**{at: [score] for at, score in IMPROVING_SCORES.items()}, 192: [600.0], 224: [600.0]}


if __name__ == "__main__":
    train_with_scores(Path(sys.argv[1]), degrading_scores(), images=480, on_failure=sys.argv[2])
