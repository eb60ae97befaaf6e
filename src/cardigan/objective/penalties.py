"""Penalties on the discriminator's slope, by name: what keeps the game from running away.

Each is a function and its line in `PENALTIES`, with a weight of the same name in `ObjectiveConfig`. They are defined where each logit
depends on its own picture alone, or, where D sees packs (arXiv:1712.04086), on its own pack. With batch normalisation or minibatch
deviation in D they are computed as if it did.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from cardigan.shapes import Images, Scalar

Critic = Callable[[Images], Float[Tensor, " logit"]]
"""D, with its labels already given."""


@dataclass(frozen=True)
class PenaltyInputs:
    """What a penalty may look at: D, what it was just shown and said of it, and the batch's random numbers, where any penalty reads them."""

    critic: Critic
    real: Images
    fake: Images
    real_logits: Float[Tensor, " logit"]
    fake_logits: Float[Tensor, " logit"]
    interpolation: Float[Tensor, " batch"] | None = None
    """Uniform on [0, 1), for WGAN-GP."""
    noise: Images | None = None
    """Standard normal, for DRAGAN."""


@dataclass(frozen=True)
class Penalty:
    """One way to hold D's slope."""

    compute: Callable[[PenaltyInputs], Scalar]
    """The penalty without its weight."""
    coefficient: float = 1.0
    """How much of its weight it is charged with, by the paper's definition."""
    gradient_of: Literal["", "real", "fake"] = ""
    """Pictures whose slope it takes from D's own pass over them, which must keep it then."""


def zero_centered_penalty(logits: Float[Tensor, " logit"], images: Images) -> Scalar:
    """Return E[|dD/dx|^2] (arXiv:1801.04406, eq. 9 and 10, without the weight): R1 on real images, R2 on fake ones.

    `images` must have been given to D with `requires_grad`.
    """
    return input_gradients(logits, images).square().sum(dim=1).mean()


def gradient_penalty(
    critic: Critic, real: Images, fake: Images, interpolation: Float[Tensor, " batch"] | None
) -> Scalar:
    """Return E[(|dD/dx| - 1)^2] at points between real and generated pictures (arXiv:1704.00028, eq. 3, without the weight).

    `interpolation` is uniform on [0, 1): how much of each point is real.
    """
    assert interpolation is not None
    alpha = interpolation[:, None, None, None]
    return one_centered_penalty(critic, alpha * real + (1 - alpha) * fake)


def dragan_penalty(critic: Critic, real: Images, noise: Images | None) -> Scalar:
    """Return E[(|dD/dx| - 1)^2] around real pictures (arXiv:1705.07215, section 2.3, without the weight), at x + N(0, c).

    `noise` is standard normal; the standard deviation of the perturbation is half that of the batch.
    """
    assert noise is not None
    return one_centered_penalty(critic, real + real.std() / 2 * noise)


def one_centered_penalty(critic: Critic, points: Images) -> Scalar:
    """Return E[(|dD/dx| - 1)^2] at these points."""
    points = points.detach().requires_grad_(True)
    # Where the slope is exactly 0 its length has no derivative: 1e-12 keeps that finite.
    return ((input_gradients(critic(points), points).square().sum(dim=1) + 1e-12).sqrt() - 1).square().mean()


def input_gradients(logits: Float[Tensor, " logit"], images: Images) -> Float[Tensor, "logit value"]:
    """Return the gradient of each logit with respect to the pictures it was given for, as one row."""
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.float().reshape(len(logits), -1)


PENALTIES = {
    "r1": Penalty(lambda seen: zero_centered_penalty(seen.real_logits, seen.real), coefficient=0.5, gradient_of="real"),
    "r2": Penalty(lambda seen: zero_centered_penalty(seen.fake_logits, seen.fake), coefficient=0.5, gradient_of="fake"),
    "wgan_gp": Penalty(lambda seen: gradient_penalty(seen.critic, seen.real, seen.fake, seen.interpolation)),
    "dragan": Penalty(lambda seen: dragan_penalty(seen.critic, seen.real, seen.noise)),
}
