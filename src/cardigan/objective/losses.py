"""GAN losses by name, as functions of logits.

Each entry has a loss for D, a loss for G and an interpretation of the logits. To add one, write the two functions and
an entry in `LOSSES` (docs/guides/extend.md).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import softplus

from cardigan.errors import unknown
from cardigan.shapes import Logits, Scalar


@dataclass(frozen=True)
class Loss:
    """The losses that D and G minimize, and the interpretation of D's logits."""

    discriminator: Callable[[Logits, Logits], Scalar]
    generator: Callable[[Logits, Logits], Scalar]
    margin: Callable[[Logits, Logits], Logits]
    """Margin of logits against logits of the opposite kind: above 0 where D classifies an image as real."""
    probability: Callable[[Logits], Logits] | None
    """Maps a margin to the probability of being real. None if margins have no scale (wasserstein)."""
    needs_real_logits: bool = False
    """Whether the generator's loss needs real logits."""
    bounded_below: bool = True
    """Whether D's loss is bounded below. Otherwise D's input gradient has to be bounded, for example by a penalty."""
    decision_boundary: float | None = None
    """The logit above which D classifies an image as real. None if logits have no zero, so that only differences of
    real and generated logits mean something (relativistic, wasserstein)."""

    def mean_probability(self, logits: Logits, opposite: Logits) -> Scalar:
        """Return the mean probability of being real, or the mean margin if the loss defines no probability."""
        margin = self.margin(logits, opposite)
        return (margin if self.probability is None else self.probability(margin)).mean()


def non_saturating_discriminator(real: Logits, fake: Logits) -> Scalar:
    """Return -E[log D(x)] - E[log(1 - D(G(z)))] (arXiv:1406.2661, eq. 1), each term a mean over its batch."""
    return softplus(fake).mean() + softplus(-real).mean()


def non_saturating_generator(real: Logits, fake: Logits) -> Scalar:
    """Return -E[log D(G(z))] (arXiv:1406.2661, section 3): the same fixed point, without early vanishing gradients."""
    return softplus(-fake).mean()


def minimax_generator(real: Logits, fake: Logits) -> Scalar:
    """Return E[log(1 - D(G(z)))] (arXiv:1406.2661, eq. 1): the original loss. Its gradient vanishes where D is sure."""
    return -softplus(fake).mean()


def relativistic_discriminator(real: Logits, fake: Logits) -> Scalar:
    """Return E[f(D(G(z)) - D(x))] with f = softplus, pair by pair (arXiv:2501.05441, eq. 2)."""
    return softplus(fake - real).mean()


def relativistic_generator(real: Logits, fake: Logits) -> Scalar:
    """Return the pairing loss with real and fake swapped: fake images should look more real than their partners."""
    return softplus(real - fake).mean()


def least_squares_discriminator(real: Logits, fake: Logits) -> Scalar:
    """Return E[(D(x) - 1)^2]/2 + E[D(G(z))^2]/2 (arXiv:1611.04076, eq. 9: a = 0, b = 1)."""
    return (real - 1).square().mean() / 2 + fake.square().mean() / 2


def least_squares_generator(real: Logits, fake: Logits) -> Scalar:
    """Return E[(D(G(z)) - 1)^2]/2 (arXiv:1611.04076, eq. 9: c = 1)."""
    return (fake - 1).square().mean() / 2


def hinge_discriminator(real: Logits, fake: Logits) -> Scalar:
    """Return E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))] (arXiv:1802.05957, eq. 16)."""
    return torch.relu(1 - real).mean() + torch.relu(1 + fake).mean()


def wasserstein_generator(real: Logits, fake: Logits) -> Scalar:
    """Return -E[D(G(z))] (arXiv:1802.05957, eq. 17; arXiv:1701.07875, algorithm 1)."""
    return -fake.mean()


def wasserstein_discriminator(real: Logits, fake: Logits) -> Scalar:
    """Return E[D(G(z))] - E[D(x)] (arXiv:1701.07875, eq. 3, negated): minus the distance, if D is 1-Lipschitz."""
    return fake.mean() - real.mean()


def logit_margin(logits: Logits, opposite: Logits) -> Logits:
    """Return the logits. 0 is undecided."""
    return logits


def relativistic_margin(logits: Logits, opposite: Logits) -> Logits:
    """Return how much more real than its partner each image looks."""
    return logits - opposite


def least_squares_margin(logits: Logits, opposite: Logits) -> Logits:
    """Return the logits minus 1/2, the midpoint of the targets 0 and 1."""
    return logits - 0.5


def least_squares_probability(margin: Logits) -> Logits:
    """Return the position of a margin between the targets, from 0 to 1."""
    return (margin + 0.5).clamp(0, 1)


LOSSES = {
    "non-saturating": Loss(
        non_saturating_discriminator, non_saturating_generator, logit_margin, torch.sigmoid, decision_boundary=0.0
    ),
    "minimax": Loss(
        non_saturating_discriminator, minimax_generator, logit_margin, torch.sigmoid, decision_boundary=0.0
    ),
    "relativistic": Loss(
        relativistic_discriminator, relativistic_generator, relativistic_margin, torch.sigmoid, needs_real_logits=True
    ),
    "least-squares": Loss(
        least_squares_discriminator,
        least_squares_generator,
        least_squares_margin,
        least_squares_probability,
        decision_boundary=0.5,
    ),
    "hinge": Loss(hinge_discriminator, wasserstein_generator, logit_margin, torch.sigmoid, decision_boundary=0.0),
    "wasserstein": Loss(
        wasserstein_discriminator, wasserstein_generator, relativistic_margin, None, bounded_below=False
    ),
}


def find_loss(name: str) -> Loss:
    """Return the losses of D and G by `name`: non-saturating, minimax, relativistic, least-squares, hinge, wasserstein.

    They are functions of real and of generated logits [batch], in this order, and return a scalar. Raises CardiganError
    for an unknown name.

    Examples:
        >>> import cardigan
        >>> import torch
        >>> loss = cardigan.find_loss("hinge")
        >>> real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 1.0])
        >>> loss.discriminator(real, fake).item(), loss.generator(real, fake).item()
        (1.5, -0.0)
    """
    if name not in LOSSES:
        raise unknown("loss", name, LOSSES)
    return LOSSES[name]
