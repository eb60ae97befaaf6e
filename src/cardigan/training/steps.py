"""One iteration of the game, in the tutorial's five steps.

Does not know where pictures and latents come from, nor what happens to the numbers it returns.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.optim import Optimizer

from cardigan.config import ObjectiveConfig
from cardigan.data.batches import Batch
from cardigan.nets.interface import Discriminator, Generator
from cardigan.objective.losses import Loss
from cardigan.objective.penalties import zero_centred_penalty
from cardigan.shapes import Images, Labels, Latents, Logits, Scalar
from cardigan.training.devices import Devices

MEASURES = (
    *("discriminator_loss", "generator_loss", "d_real", "d_fake", "d_fake_after"),
    *("r1", "r2", "discriminator_gradient", "generator_gradient"),
)
"""What one iteration measures: both losses without penalties, D's belief in real and in generated pictures
before its update, its belief in the same generated pictures after it, the penalties without their weights,
and the length of both gradients: not a finite number where an update was refused."""

Measurements: TypeAlias = Float[Tensor, "9"]


@dataclass(frozen=True)
class Players:
    """The two networks and their optimizers."""

    generator: Generator
    discriminator: Discriminator
    generator_optimizer: Optimizer
    discriminator_optimizer: Optimizer


@dataclass(frozen=True)
class Rules:
    """What is played for, and where."""

    loss: Loss
    objective: ObjectiveConfig
    conditional: bool
    devices: Devices


def iterate(players: Players, rules: Rules, real: Batch, z: Latents, penalise: bool) -> Measurements:
    """Let both players learn from one batch; the generator's pictures are drawn once and serve both."""
    labels = real.labels if rules.conditional else None
    # 1. The generator draws.
    with rules.devices.autocast():
        fake = players.generator(z, labels)
    fake = fake.float()
    # 2. and 3. The discriminator judges the fake batch and the real one, apart, and the gradients are added. 4. It learns.
    judged = judge(players.discriminator, rules, real.images, fake.detach(), labels, penalise)
    weight = rules.objective.penalty_interval / 2
    cost = judged.loss + weight * (rules.objective.r1 * judged.r1 + rules.objective.r2 * judged.r2)
    discriminator_gradient = learn(players.discriminator, players.discriminator_optimizer, cost, rules.devices)
    # 5. The updated discriminator judges the same pictures; its gradient with respect to them flows on into the generator, which learns.
    real_logits = judged.real_logits
    with frozen(players.discriminator):
        with rules.devices.autocast():
            if rules.loss.compares:
                with torch.no_grad():
                    real_logits = players.discriminator(real.images, labels)
            fake_logits = players.discriminator(fake, labels)
        generator_loss = rules.loss.generator(real_logits, fake_logits)
        # A refused update of D refuses G's too: 0 times what is not finite is not finite.
        unspoiled = 0 * discriminator_gradient
        generator_gradient = learn(players.generator, players.generator_optimizer, generator_loss + unspoiled, rules.devices)
    belief = rules.loss.belief
    after = belief(fake_logits, real_logits)
    before = (belief(judged.real_logits, judged.fake_logits), belief(judged.fake_logits, judged.real_logits))
    measured = [judged.loss, generator_loss, *before, after, judged.r1, judged.r2, discriminator_gradient, generator_gradient]
    return torch.stack(measured).detach()


@dataclass(frozen=True)
class Judged:
    """The discriminator's two passes."""

    fake_logits: Logits
    real_logits: Logits
    loss: Scalar
    r1: Scalar
    r2: Scalar


def judge(discriminator: Discriminator, rules: Rules, real: Images, fake: Images, labels: Labels | None, penalise: bool) -> Judged:
    """Return D's logits on both batches, passed apart so that their batch statistics stay apart, its loss and its penalties."""
    r1_on, r2_on = penalise and rules.objective.r1 > 0, penalise and rules.objective.r2 > 0
    real, fake = real.detach().requires_grad_(r1_on), fake.detach().requires_grad_(r2_on)
    with rules.devices.autocast():
        fake_logits = discriminator(fake, labels)
        real_logits = discriminator(real, labels)
    off = torch.zeros((), device=real.device)
    return Judged(
        fake_logits,
        real_logits,
        rules.loss.discriminator(real_logits, fake_logits),
        zero_centred_penalty(real_logits, real) if r1_on else off,
        zero_centred_penalty(fake_logits, fake) if r2_on else off,
    )


@contextmanager
def frozen(player: nn.Module) -> Iterator[None]:
    """Inside the block, compute no gradient of this player's weights; gradients still flow through it."""
    learning = [parameter for parameter in player.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def learn(player: nn.Module, optimizer: Optimizer, cost: Scalar, devices: Devices) -> Scalar:
    """Update one player, and it alone: gradients are asked for by name, so the opponent's are never computed.

    Returns the length of the gradient, over all processes together. If that or the cost is not a finite number, nothing is updated:
    every process sees the same sum, so all of them refuse.
    """
    parameters = [parameter for parameter in player.parameters() if parameter.requires_grad]
    *gradients, shared_cost = devices.processes.average([*torch.autograd.grad(cost, parameters), cost.detach()])
    for parameter, gradient in zip(parameters, gradients, strict=True):
        # Fused Adam walks raw memory: a gradient laid out otherwise than its parameter would update the wrong weights.
        parameter.grad = gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)
    length = length_of(gradients) + 0 * shared_cost
    _step_if(length.isfinite(), optimizer)
    optimizer.zero_grad(set_to_none=True)
    return length


def length_of(gradients: list[Tensor]) -> Scalar:
    """Return the Euclidean length of all gradients together; not finite if any number in them is not."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))  # pyright: ignore[reportPrivateImportUsage] - as torch's own clipping


def _step_if(allowed: Bool[Tensor, ""], optimizer: Optimizer) -> None:
    """Let the optimizer step if it is allowed; on a GPU its kernel decides, so that the loop need not wait for the answer."""
    if allowed.is_cuda:
        optimizer.found_inf = (~allowed).float()  # pyright: ignore[reportAttributeAccessIssue] - how torch.amp tells a fused optimizer to stand still
        optimizer.step()
    elif allowed:
        optimizer.step()
