"""The faults of GAN training by name, with an explanation and advice for each. Knows text only."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """A fault, the step where it was detected, and the numbers that show it."""

    name: str
    step: int
    """Images seen, or steps, in the unit of the readings."""
    evidence: Mapping[str, float | int | str]
    """Non-finite values are strings (nan, inf), since JSON cannot represent them."""
    fatal: bool
    """Whether further training is useless. `--on-failure stop` and `rollback` act on fatal faults."""
    message: str

    @property
    def advice(self) -> str:
        return ADVICE[self.name]


MESSAGES = {
    "mode collapse": "the generator produces (nearly) the same image from every latent",
    "partial mode collapse": "generated images differ much less from each other than real images do",
    "discriminator too strong": "D separates real from generated images almost perfectly, so G learns nothing from it",
    "discriminator too weak": "D classifies generated images as real, so G learns nothing from it",
    "divergence": "losses or gradients have grown far beyond their earlier values",
    "discriminator overfitting": "D has memorized its training images: it rates new real images as much less real",
    "memorization": "generated images are much nearer to training images than new real images are: G copies",
    "plateau": "the score has not improved for half of the run",
    "non-finite": "a number became infinite or undefined",
}
SCORE_MESSAGES = {
    "mode collapse": "the score is far worse than before and does not recover",
    "partial mode collapse": "the score gets worse with each evaluation",
}

ADVICE = {
    "mode collapse": "Go back to the best checkpoint. Then lower both learning rates, or raise the penalties "
    "(objective.penalties.r1, objective.penalties.r2).",
    "partial mode collapse": "Check the sample grids. Lower the generator's learning rate, use a larger batch size, or "
    "the relativistic loss.",
    "discriminator too strong": "Lower D's learning rate or its width, or raise objective.penalties.r1.",
    "discriminator too weak": "Lower G's learning rate, or raise D's learning rate or its width.",
    "divergence": "Lower both learning rates, or raise objective.penalties.r1. If it happens in the first steps, set "
    "warmup_images.",
    "discriminator overfitting": "Use more training images, a smaller D, or a higher objective.penalties.r1, or stop "
    "early.",
    "memorization": "Use more training images, or a smaller G and D. Do not publish these samples as new images.",
    "plateau": "Use the best checkpoint. Longer training will not help. --patience-images stops such a run.",
    "non-finite": "Lower the learning rates, or use --precision fp32. --resume continues from the last checkpoint, "
    "which is from before the fault.",
}


def make_fault(
    name: str, step: int, evidence: Mapping[str, float | int], *, fatal: bool, message: str | None = None
) -> Fault:
    """Return the fault of this name, with rounded numbers."""
    return Fault(
        name, step, {key: _round_evidence(value) for key, value in evidence.items()}, fatal, message or MESSAGES[name]
    )


def _round_evidence(value: float | int) -> float | int | str:
    if isinstance(value, int):
        return value
    return float(f"{value:.4g}") if math.isfinite(value) else str(value)
