"""Penalties on the discriminator, by name: what keeps its gradient, and with it the training, bounded.

A penalty is one `Penalty` in `PENALTIES`; its weight is `objective.penalties[name]`. A plug-in adds lines to the
table. The penalties here assume that each logit depends on its own image alone or, where D sees packs
(arXiv:1712.04086), on its own pack. With batch normalization or minibatch standard deviation in D they are computed
as if that held. Where D has several heads, they take the gradient of the mean over its heads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from cardigan.errors import unknown
from cardigan.shapes import FeatureVectors, Images, Scalar

Points: TypeAlias = Images | FeatureVectors
"""What D's trained layers see: images or, where its first layers are frozen, their features."""
CriticLogits: TypeAlias = Float[Tensor, "logit *heads"]  # noqa: F821 - jaxtyping
"""One row of logits per image, or per pack of images."""

Critic = Callable[[Points], CriticLogits]
"""D with its labels filled in."""


@dataclass(frozen=True)
class PenaltyInputs:
    """What a penalty may read: D, the images of this step, their logits, and the random numbers it declared."""

    critic: Critic
    real: Points
    fake: Points
    real_logits: CriticLogits
    fake_logits: CriticLogits
    interpolation: Float[Tensor, " batch"] | None = None
    """Uniform on [0, 1), equal for all images of a pack. None unless a penalty declares it."""
    noise: Images | None = None
    """Standard normal, of the images' shape. None unless a penalty declares it."""


@dataclass(frozen=True)
class Penalty:
    """A penalty and what it needs."""

    compute: Callable[[PenaltyInputs], Scalar]
    """The value without its weight, >= 0."""
    coefficient: float = 1.0
    """A factor of the paper's definition, next to the weight: 1/2 for R1 and R2."""
    gradient_of: Literal["", "real", "fake"] = ""
    """Images whose gradient it takes through the logits in `PenaltyInputs`. D's graph is then kept for them."""
    random_inputs: frozenset[Literal["interpolation", "noise"]] = frozenset()
    """Random numbers it reads."""
    forbids_batch_norm: bool = False
    """Whether batch normalization in D makes it meaningless, as for WGAN-GP (arXiv:1704.00028, section 4)."""


def zero_centered_penalty(logits: CriticLogits, images: Points) -> Scalar:
    """Return E[|dD/dx|^2] (arXiv:1801.04406, eq. 9 and 10, without the weight): R1 on real images, R2 on generated
    ones.

    `images` must have been given to D with `requires_grad`.
    """
    return input_gradients(logits, images).square().sum(dim=1).mean()


def gradient_penalty(
    critic: Critic, real: Points, fake: Points, interpolation: Float[Tensor, " batch"] | None
) -> Scalar:
    """Return E[(|dD/dx| - 1)^2] at points between real and generated images (arXiv:1704.00028, eq. 3, without the
    weight).

    `interpolation` in [0, 1) is how much of each point is real.
    """
    assert interpolation is not None
    real_fraction = interpolation.view(-1, *[1] * (real.dim() - 1))
    return one_centered_penalty(critic, real_fraction * real + (1 - real_fraction) * fake)


def dragan_penalty(critic: Critic, real: Images, noise: Images | None) -> Scalar:
    """Return E[(|dD/dx| - 1)^2] around real images (arXiv:1705.07215, section 2.3, without the weight), at x + N(0, c).

    `noise` is standard normal. The standard deviation of the perturbation is half that of the batch.
    """
    assert noise is not None
    return one_centered_penalty(critic, real + real.std() / 2 * noise)


def one_centered_penalty(critic: Critic, points: Points) -> Scalar:
    """Return E[(|dD/dx| - 1)^2] at these points."""
    points = points.detach().requires_grad_(True)
    # The norm has no derivative where the gradient is exactly 0: 1e-12 keeps that finite.
    return ((input_gradients(critic(points), points).square().sum(dim=1) + 1e-12).sqrt() - 1).square().mean()


def input_gradients(logits: CriticLogits, images: Points) -> Float[Tensor, "logit value"]:
    """Return the gradient of each logit with respect to its images, one row per logit; of several heads, their mean."""
    num_heads = logits[:1].numel()
    (gradient,) = torch.autograd.grad(logits.sum() / num_heads, images, create_graph=True)
    return gradient.float().reshape(len(logits), -1)


PENALTIES = {
    "r1": Penalty(
        lambda inputs: zero_centered_penalty(inputs.real_logits, inputs.real), coefficient=0.5, gradient_of="real"
    ),
    "r2": Penalty(
        lambda inputs: zero_centered_penalty(inputs.fake_logits, inputs.fake), coefficient=0.5, gradient_of="fake"
    ),
    "wgan_gp": Penalty(
        lambda inputs: gradient_penalty(inputs.critic, inputs.real, inputs.fake, inputs.interpolation),
        random_inputs=frozenset({"interpolation"}),
        forbids_batch_norm=True,
    ),
    "dragan": Penalty(
        lambda inputs: dragan_penalty(inputs.critic, inputs.real, inputs.noise), random_inputs=frozenset({"noise"})
    ),
}


def find_penalty(name: str) -> Penalty:
    """Return a penalty by its name; raises CardiganError for an unknown one."""
    if name not in PENALTIES:
        raise unknown("penalty", name, PENALTIES)
    return PENALTIES[name]
