"""One iteration of the game, in the tutorial's five steps.

Does not know where pictures and random numbers come from, nor what happens to the numbers it returns.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.optim import Optimizer

from cardigan.config import ObjectiveConfig
from cardigan.data.batches import Batch
from cardigan.nets.interface import Discriminator, Generator
from cardigan.objective.losses import Loss
from cardigan.objective.penalties import PENALTIES, PenaltyInputs
from cardigan.shapes import Images, Labels, Latents, Logits, Scalar
from cardigan.training.ada import Augmentation
from cardigan.training.devices import Devices

STEP_METRICS = (
    *("discriminator_loss", "generator_loss", "d_real", "d_fake", "d_fake_after_update"),
    *("discriminator_gradient_norm", "generator_gradient_norm", "real_margin_sign", "augment_probability"),
    *PENALTIES,
)
"""What one iteration measures: both losses without penalties, D's belief in real and in generated pictures
before its update, its belief in the same generated pictures after it, the length of both gradients, not a finite number where an update
was refused; the mean sign of D's margin on real pictures, how likely each operation of the augmentation is, and the penalties without
their weights. What a step of this kind does not have is 0."""
GENERATOR_METRICS = ("generator_loss", "d_fake_after_update", "generator_gradient_norm")

StepMetrics: TypeAlias = Float[Tensor, " measure"]


class StepKind(NamedTuple):
    """What a step does beside having D learn."""

    apply_penalties: bool
    update_generator: bool


FULL_STEP = StepKind(apply_penalties=True, update_generator=True)


@dataclass(frozen=True)
class Networks:
    """The two networks and their optimizers."""

    generator: Generator
    discriminator: Discriminator
    generator_optimizer: Optimizer
    discriminator_optimizer: Optimizer


@dataclass(frozen=True)
class StepConfig:
    """What is played for, and where."""

    loss: Loss
    objective: ObjectiveConfig
    conditional: bool
    devices: Devices
    gradient_accumulation: int = 1
    """Parts a batch is computed in, one after another."""


@dataclass(frozen=True)
class RandomDraws:
    """The random numbers of a batch; those that nothing reads are None."""

    z: Latents
    augment_real: Float[Tensor, "batch column"] | None = None
    augment_fake: Float[Tensor, "batch column"] | None = None
    """Uniform on [0, 1), for `objective/augment.py`."""
    interpolation: Float[Tensor, " batch"] | None = None
    noise: Images | None = None
    """For penalties (`objective.penalties.PenaltyInputs`)."""


@dataclass(frozen=True)
class MicroBatch:
    """As much of a batch as is computed at a time: all of it, unless gradients are accumulated. Pictures are as D sees them."""

    real: Images
    fake: Images
    labels: Labels | None
    """None where the players are not told of classes."""
    draws: RandomDraws


@dataclass(frozen=True)
class Game:
    """What stays the same from step to step."""

    networks: Networks
    step_config: StepConfig
    augmentation: Augmentation | None = None


def train_step(
    game: Game,
    microbatches: Sequence[tuple[Batch, RandomDraws]],
    kind: StepKind = FULL_STEP,
    penalty_factor: Scalar | float = 1.0,
) -> StepMetrics:
    """Let the players learn from one batch, given whole or in parts.

    Of a batch that is whole the generator's pictures are drawn once and serve both players; of parts they are drawn again when G learns, so
    that the activations of one part at most are held.
    """
    # 1. The generator draws.
    reuse_fakes = kind.update_generator and len(microbatches) == 1
    generated = [generate_microbatch(game, real, draws, requires_grad=reuse_fakes) for real, draws in microbatches]
    # 2. and 3. The discriminator judges the fake batch and the real one, apart, and the gradients are added. 4. It learns.
    discriminator_stats, discriminator_gradient_norm = discriminator_step(
        game, generated, kind.apply_penalties, penalty_factor
    )
    zero = torch.zeros_like(discriminator_gradient_norm)
    generator_stats, generator_gradient_norm = [GeneratorStats(zero, zero)], zero
    if kind.update_generator:
        # 5. The updated discriminator judges the same pictures; its gradient with respect to them flows on into the generator, which learns.
        generator_microbatches = (
            generated
            if reuse_fakes
            else (generate_microbatch(game, real, chance, requires_grad=True) for real, chance in microbatches)
        )
        generator_stats, generator_gradient_norm = generator_step(
            game, generator_microbatches, discriminator_stats, discriminator_gradient_norm
        )
    margin_sign, augment_probability = _mean([stats.margin_sign for stats in discriminator_stats]), zero
    if game.augmentation is not None:
        # Last of all, so that both players have seen this batch changed in the same way.
        game.augmentation.adapt(
            margin_sign, sum(len(part.real) for part in generated), game.step_config.devices.process_group
        )
        augment_probability = game.augmentation.probability
    loss, d_real, d_fake = (
        _mean([getattr(stats, name) for stats in discriminator_stats]) for name in ("loss", "d_real", "d_fake")
    )
    generator_loss, d_fake_after_update = (
        _mean([getattr(stats, name) for stats in generator_stats]) for name in ("loss", "mean_probability")
    )
    penalties = [_mean([stats.penalties[name] for stats in discriminator_stats]) for name in PENALTIES]
    values = [loss, generator_loss, d_real, d_fake, d_fake_after_update]
    return torch.stack(
        [*values, discriminator_gradient_norm, generator_gradient_norm, margin_sign, augment_probability, *penalties]
    ).detach()


def generate_microbatch(game: Game, real: Batch, draws: RandomDraws, requires_grad: bool) -> MicroBatch:
    """Return real pictures and generated ones as D sees them; with `requires_grad` the way back to the generator is kept."""
    labels = real.labels if game.step_config.conditional else None
    with game.step_config.devices.autocast(), nullcontext() if requires_grad else torch.no_grad():
        fake = game.networks.generator(draws.z, labels)
    fake, augmented_real = fake.float(), real.images
    if game.augmentation is not None:
        assert draws.augment_real is not None and draws.augment_fake is not None
        augmented_real, fake = (
            game.augmentation(augmented_real, draws.augment_real),
            game.augmentation(fake, draws.augment_fake),
        )
    return MicroBatch(augmented_real, fake, labels, draws)


def discriminator_step(
    game: Game, microbatches: Sequence[MicroBatch], apply_penalties: bool, penalty_factor: Scalar | float
) -> tuple[list["DiscriminatorStats"], Scalar]:
    """Have D learn from all parts; return what it said of each before it did, and the length of its gradient."""
    stats: list[DiscriminatorStats] = []

    def losses() -> Iterator[Scalar]:
        for microbatch in microbatches:
            output = discriminator_forward(
                game.networks.discriminator,
                game.step_config,
                microbatch.real,
                microbatch.fake.detach(),
                microbatch.labels,
                apply_penalties,
                microbatch.draws,
            )
            stats.append(_discriminator_stats(output, game.step_config.loss))
            yield (
                output.loss + penalty_factor * _weighted_penalties(output, game.step_config.objective)
                if apply_penalties
                else output.loss
            ) / len(microbatches)

    gradient_norm = apply_gradients(
        game.networks.discriminator, game.networks.discriminator_optimizer, losses(), game.step_config.devices
    )
    return stats, gradient_norm


def generator_step(
    game: Game,
    microbatches: Iterable[MicroBatch],
    discriminator_stats: Sequence["DiscriminatorStats"],
    discriminator_gradient_norm: Scalar,
) -> tuple[list["GeneratorStats"], Scalar]:
    """Have G learn from all parts; return its loss and D's new belief for each, and the length of its gradient."""
    generator_stats: list[GeneratorStats] = []
    discriminator, step_config = game.networks.discriminator, game.step_config

    def losses() -> Iterator[Scalar]:
        for microbatch, stats in zip(microbatches, discriminator_stats, strict=True):
            real_logits = stats.real_logits
            with step_config.devices.autocast():
                if step_config.loss.needs_real_logits:
                    with torch.no_grad():
                        real_logits = discriminator(microbatch.real, microbatch.labels)
                fake_logits = discriminator(microbatch.fake, microbatch.labels)
            loss = step_config.loss.generator(real_logits, fake_logits)
            generator_stats.append(
                GeneratorStats(loss.detach(), step_config.loss.mean_probability(fake_logits.detach(), real_logits))
            )
            # A refused update of D refuses G's too: 0 times what is not finite is not finite.
            yield loss / len(discriminator_stats) + 0 * discriminator_gradient_norm

    with freeze_parameters(discriminator):
        gradient_norm = apply_gradients(
            game.networks.generator, game.networks.generator_optimizer, losses(), step_config.devices
        )
    return generator_stats, gradient_norm


@dataclass(frozen=True)
class DiscriminatorOutput:
    """The discriminator's two passes, and its penalties without their weights."""

    fake_logits: Logits
    real_logits: Logits
    loss: Scalar
    penalties: dict[str, Scalar]
    """Those that are off, or not due, are 0."""


@dataclass(frozen=True)
class DiscriminatorStats:
    """What is kept of that once D has learned: numbers only."""

    real_logits: Logits
    loss: Scalar
    d_real: Scalar
    d_fake: Scalar
    margin_sign: Scalar
    penalties: dict[str, Scalar]


@dataclass(frozen=True)
class GeneratorStats:
    """What came of G's pictures: its loss, and how real the updated D takes them for."""

    loss: Scalar
    mean_probability: Scalar


def discriminator_forward(
    discriminator: Discriminator,
    step_config: StepConfig,
    real: Images,
    fake: Images,
    labels: Labels | None,
    apply_penalties: bool,
    draws: RandomDraws | None = None,
) -> DiscriminatorOutput:
    """Return D's logits on both batches, passed apart so that their batch statistics stay apart, its loss and its penalties."""
    active = {
        name: penalty
        for name, penalty in PENALTIES.items()
        if apply_penalties and step_config.objective.penalty_weight(name) > 0
    }
    gradients_of = {penalty.gradient_of for penalty in active.values()}
    real, fake = (
        real.detach().requires_grad_("real" in gradients_of),
        fake.detach().requires_grad_("fake" in gradients_of),
    )

    def critic(images: Images) -> Float[Tensor, " logit"]:
        with step_config.devices.autocast():
            return discriminator(images, labels)

    fake_logits = critic(fake)
    real_logits = critic(real)
    interpolation, noise = (None, None) if draws is None else (draws.interpolation, draws.noise)
    penalty_inputs = PenaltyInputs(critic, real, fake, real_logits, fake_logits, interpolation, noise)
    penalties = dict.fromkeys(PENALTIES, torch.zeros((), device=real.device)) | {
        name: penalty.compute(penalty_inputs) for name, penalty in active.items()
    }
    return DiscriminatorOutput(
        fake_logits, real_logits, step_config.loss.discriminator(real_logits, fake_logits), penalties
    )


def _weighted_penalties(output: DiscriminatorOutput, objective: ObjectiveConfig) -> Scalar:
    """Return the penalties as D pays for them; what is computed on every n-th step counts n times."""
    weighted = [
        objective.penalty_weight(name) * penalty.coefficient * output.penalties[name]
        for name, penalty in PENALTIES.items()
    ]
    return objective.penalty_interval * torch.stack(weighted).sum()


def _discriminator_stats(output: DiscriminatorOutput, loss: Loss) -> DiscriminatorStats:
    real, fake = output.real_logits.detach(), output.fake_logits.detach()
    penalties = {name: value.detach() for name, value in output.penalties.items()}
    return DiscriminatorStats(
        real,
        output.loss.detach(),
        loss.mean_probability(real, fake),
        loss.mean_probability(fake, real),
        loss.margin(real, fake).sign().mean(),
        penalties,
    )


@contextmanager
def freeze_parameters(network: nn.Module) -> Iterator[None]:
    """Inside the block, compute no gradient of this player's weights; gradients still flow through it."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def apply_gradients(network: nn.Module, optimizer: Optimizer, losses: Iterable[Scalar], devices: Devices) -> Scalar:
    """Update one player by the sum of these costs, and it alone: gradients are asked for by name, so the opponent's are never computed.

    Each cost's gradient is taken before the next is asked for. Returns the length of their sum, over all processes together. If that or a
    cost is not a finite number, nothing is updated: every process sees the same sum, so all of them refuse.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    gradient_sums: list[Tensor] = []
    for loss in losses:
        new = [*torch.autograd.grad(loss, parameters), loss.detach()]
        gradient_sums = (
            new if not gradient_sums else [old + added for old, added in zip(gradient_sums, new, strict=True)]
        )
    *gradients, mean_loss = devices.process_group.all_reduce_mean(gradient_sums)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        # Fused Adam walks raw memory: a gradient laid out otherwise than its parameter would update the wrong weights.
        parameter.grad = (
            gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)
        )
    norm = gradient_norm(gradients) + 0 * mean_loss
    _step_if_finite(norm.isfinite(), optimizer, devices)
    optimizer.zero_grad(set_to_none=True)
    return norm


def gradient_norm(gradients: list[Tensor]) -> Scalar:
    """Return the Euclidean length of all gradients together; not finite if any number in them is not."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))  # pyright: ignore[reportPrivateImportUsage] - as torch's own clipping


def _step_if_finite(is_finite: Bool[Tensor, ""], optimizer: Optimizer, devices: Devices) -> None:
    """Let the optimizer step if it is allowed; where the host runs ahead, its kernel decides, so that the loop need not wait for the answer."""
    if devices.is_async:
        optimizer.found_inf = (~is_finite).float()  # pyright: ignore[reportAttributeAccessIssue] - how torch.amp tells a fused optimizer to stand still
        optimizer.step()
    elif is_finite:
        optimizer.step()


def _mean(values: Sequence[Scalar]) -> Scalar:
    return values[0] if len(values) == 1 else torch.stack(list(values)).mean()
