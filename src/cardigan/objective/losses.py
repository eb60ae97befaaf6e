"""The losses of the game by name, for both players, on logits.

Each is a pair of functions of (real, fake) logits; to add one, write the pair and its line in `LOSSES`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import softplus

from cardigan.errors import unknown
from cardigan.shapes import Logits, Scalar


@dataclass(frozen=True)
class Loss:
    """One game: what each player minimises, how sure D is that the first of two kinds of logits is real,
    and whether the generator's loss compares with real logits."""

    discriminator: Callable[[Logits, Logits], Scalar]
    generator: Callable[[Logits, Logits], Scalar]
    belief: Callable[[Logits, Logits], Scalar]
    compares: bool


def non_saturating_discriminator(real: Logits, fake: Logits) -> Scalar:
    """Return -E[log D(x)] - E[log(1 - D(G(z)))] (arXiv:1406.2661, eq. 1), each term a mean over its batch."""
    return softplus(fake).mean() + softplus(-real).mean()


def non_saturating_generator(real: Logits, fake: Logits) -> Scalar:
    """Return -E[log D(G(z))] (arXiv:1406.2661, section 3): the same fixed point, gradients that do not vanish early."""
    return softplus(-fake).mean()


def absolute_belief(logits: Logits, opposite: Logits) -> Scalar:
    """Return the mean probability D gives a picture of being real."""
    return torch.sigmoid(logits).mean()


def relativistic_discriminator(real: Logits, fake: Logits) -> Scalar:
    """Return E[f(D(G(z)) - D(x))] with f = softplus, pair by pair (arXiv:2501.05441, eq. 2)."""
    return softplus(fake - real).mean()


def relativistic_generator(real: Logits, fake: Logits) -> Scalar:
    """Return the mirrored pairing loss: generated pictures should look more real than their partners."""
    return softplus(real - fake).mean()


def relative_belief(logits: Logits, opposite: Logits) -> Scalar:
    """Return the mean probability D gives a picture of being more real than its partner."""
    return torch.sigmoid(logits - opposite).mean()


LOSSES = {
    "non-saturating": Loss(non_saturating_discriminator, non_saturating_generator, absolute_belief, compares=False),
    "relativistic": Loss(relativistic_discriminator, relativistic_generator, relative_belief, compares=True),
}


def find_loss(name: str) -> Loss:
    if name not in LOSSES:
        raise unknown("loss", name, LOSSES)
    return LOSSES[name]
