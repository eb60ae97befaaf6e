"""A training whose scores are read from a script, so that it goes bad where a test wants it to; also run by torchrun as a program.

python -m torch.distributed.run --nproc-per-node 2 tests/training/scripted.py OUT HEALTH
"""

import sys
from dataclasses import replace
from pathlib import Path

import cardigan
from cardigan import assemble
from cardigan.api import Run
from cardigan.training.recorder import Observers

EVERY = 32
SMALL = {"batch": 16, "generator.width": 4, "discriminator.width": 4, "device": "cpu", "precision": "fp32", "checkpoint_every": EVERY}
FALLING = {EVERY * index: 100.0 - 10 * index for index in range(1, 6)}
"""Five checkpoints that get better; the fifth, at 160 images, is the best."""


def train_with_scores(out: Path, scores: dict[int, list[float]], images: int, resume: bool = False, **changes: object) -> Run:
    """Train; the checkpoint at n images gets the first of the scores[n] that are left, 55 where none are."""
    whole = assemble.build_observers

    def scripted(*arguments) -> Observers:
        def judge(snapshot) -> dict[str, float]:
            left = scores.get(snapshot.images_seen, [])
            return {"score": left.pop(0) if left else 55.0}

        return replace(whole(*arguments), judge=judge)

    assemble.build_observers = scripted
    try:
        return cardigan.train("mnist", out=out, images=images, resume=resume, overrides={**SMALL, **changes})
    finally:
        assemble.build_observers = whole


def going_bad() -> dict[int, list[float]]:
    """Better until 160 images, then twice ten times worse; better again the second time these places are reached."""
    return {**{at: [score] for at, score in FALLING.items()}, 192: [600.0], 224: [600.0]}


if __name__ == "__main__":
    train_with_scores(Path(sys.argv[1]), going_bad(), images=480, health=sys.argv[2])
