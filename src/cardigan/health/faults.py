"""The faults of a GAN by name: what each means to somebody who has never met it, and what to try.

Knows words only.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """Something that went wrong, where it was noticed, and the numbers that show it."""

    name: str
    step: int
    """Images seen, or steps, whatever the readings count in."""
    evidence: Mapping[str, float | int | str]
    """What is no number is written out (nan, inf), since JSON has no word for it."""
    fatal: bool
    """Whether going on is a waste: what `--on-failure stop` and `rollback` act on."""
    message: str

    @property
    def advice(self) -> str:
        return ADVICE[self.name]


MESSAGES = {
    "mode collapse": "the generator draws (nearly) the same picture whatever it starts from",
    "partial mode collapse": "the generated pictures differ much less from each other than the real ones do",
    "discriminator too strong": "D tells real from generated without effort, so G learns nothing from it any more",
    "discriminator too weak": "D takes generated pictures for real ones, so it teaches G nothing",
    "divergence": "losses or gradients have grown out of all proportion to what they were",
    "discriminator overfitting": "D knows its training pictures by heart: it finds new real pictures far less real",
    "memorization": "the generated pictures lie much nearer to training pictures than new real ones do: G copies",
    "plateau": "the score has not improved for half of the run",
    "non-finite": "a number became infinite or undefined",
}
SCORE_MESSAGES = {
    "mode collapse": "the score has become far worse than it was, and stays there",
    "partial mode collapse": "the score gets worse, evaluation after evaluation",
}

ADVICE = {
    "mode collapse": "Go back to the best checkpoint. Then lower both learning rates, or strengthen the penalties (objective.r1, objective.r2).",
    "partial mode collapse": "Watch the sample sheets. Lower the generator's learning rate, use a larger batch, or the relativistic loss.",
    "discriminator too strong": "Lower D's learning rate or its width, or strengthen objective.r1.",
    "discriminator too weak": "Lower G's learning rate, or raise D's learning rate or its width.",
    "divergence": "Lower both learning rates, or strengthen objective.r1; if it happens in the first steps, add warmup_images.",
    "discriminator overfitting": "Use more training pictures, a smaller D, or a stronger objective.r1; stop early.",
    "memorization": "Use more training pictures, or a smaller G and D; do not give these samples away as new pictures.",
    "plateau": "Take the best checkpoint; more of the same will not help. --patience-images stops such a run by itself.",
    "non-finite": "Lower the learning rates, or use --precision fp32; --resume goes on from the last checkpoint, which is from before.",
}


def make_fault(
    name: str, step: int, evidence: Mapping[str, float | int], *, fatal: bool, message: str | None = None
) -> Fault:
    """Return the fault of this name, its numbers rounded for people."""
    return Fault(
        name, step, {key: _round_evidence(value) for key, value in evidence.items()}, fatal, message or MESSAGES[name]
    )


def _round_evidence(value: float | int) -> float | int | str:
    if isinstance(value, int):
        return value
    return float(f"{value:.4g}") if math.isfinite(value) else str(value)
