"""One training step of G and D, in the tutorial's five parts.

Does not know where images and random numbers come from, nor what happens to the numbers it returns.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.optim import Optimizer

from cardigan.config_parts import ObjectiveConfig
from cardigan.data.batches import Batch
from cardigan.nets.interface import Discriminator, FeatureDiscriminator, Generator
from cardigan.objective.losses import Loss
from cardigan.objective.penalties import CriticLogits, PenaltyInputs, find_penalty
from cardigan.shapes import FeatureVectors, Images, Labels, Latents, Logits, Scalar
from cardigan.training.ada import Augmentation
from cardigan.training.devices import Devices
from cardigan.training.gradients import mean_gradients

BASE_METRICS = (
    *("discriminator_loss", "generator_loss", "d_real", "d_fake", "d_fake_after_update"),
    *("discriminator_gradient_norm", "generator_gradient_norm", "real_margin_sign", "augment_probability"),
)
"""What every step measures: both losses without penalties; D's mean probability for real and for generated images
before its update, and for the same generated images after it; the norms of both gradients, which are not finite
where an update was refused; the mean sign of D's margin on real images; and the probability of each
augmentation. A value that this kind of step does not have is 0."""
GENERATOR_METRICS = ("generator_loss", "d_fake_after_update", "generator_gradient_norm")

StepMetrics: TypeAlias = Float[Tensor, " metric"]


def metric_names(objective: ObjectiveConfig) -> tuple[str, ...]:
    """Return what each value of `StepMetrics` is in a run of this objective: `BASE_METRICS`, then its penalties."""
    return (*BASE_METRICS, *objective.penalties)


class StepKind(NamedTuple):
    """What a step does besides updating D."""

    apply_penalties: bool
    update_generator: bool


FULL_STEP = StepKind(apply_penalties=True, update_generator=True)


@dataclass(frozen=True)
class Networks:
    """Both networks, their optimizers, and the augmentation between them if there is one."""

    generator: Generator
    discriminator: Discriminator
    generator_optimizer: Optimizer
    discriminator_optimizer: Optimizer
    augmentation: Augmentation | None = None


@dataclass(frozen=True)
class StepConfig:
    """What stays the same from step to step: the objective, and where it is computed."""

    loss: Loss
    objective: ObjectiveConfig
    conditional: bool
    devices: Devices
    gradient_accumulation: int = 1
    """Microbatches that a batch is computed in, one after another."""


@dataclass(frozen=True)
class RandomDraws:
    """The random numbers of a batch; None where nothing reads them."""

    z: Latents
    augment_real: Float[Tensor, "batch column"] | None = None
    augment_fake: Float[Tensor, "batch column"] | None = None
    """Uniform on [0, 1), for `objective/augment.py`."""
    interpolation: Float[Tensor, " batch"] | None = None
    noise: Images | None = None
    """For penalties (`objective.penalties.PenaltyInputs`)."""


@dataclass(frozen=True)
class MicroBatch:
    """What is computed at a time: the whole batch, unless gradients are accumulated.

    Images are augmented. Of a D with frozen first layers, their features take the images' place.
    """

    real: Images | FeatureVectors
    fake: Images | FeatureVectors
    labels: Labels | None
    """None in an unconditional run."""
    draws: RandomDraws


def train_step(
    networks: Networks,
    step_config: StepConfig,
    microbatches: Sequence[tuple[Batch, RandomDraws]],
    kind: StepKind = FULL_STEP,
    penalty_factor: Scalar | float = 1.0,
) -> StepMetrics:
    """Update both networks by one batch, given whole or in microbatches, and return what `metric_names` names.

    G generates for a whole batch once, for both networks. For microbatches it generates again when G is updated, so
    that the activations of one microbatch at most are held.
    """
    # 1. G generates.
    reuse_fakes = kind.update_generator and len(microbatches) == 1
    generated = [
        generate_microbatch(networks, step_config, real, draws, requires_grad=reuse_fakes)
        for real, draws in microbatches
    ]
    # 2. and 3. D sees the generated and the real batch in separate passes; the gradients are added. 4. D is updated.
    discriminator_stats, discriminator_gradient_norm = discriminator_step(
        networks, step_config, generated, kind.apply_penalties, penalty_factor
    )
    zero = torch.zeros_like(discriminator_gradient_norm)
    generator_stats, generator_gradient_norm = [GeneratorStats(zero, zero)], zero
    if kind.update_generator:
        # 5. The updated D sees the same images; its input gradient flows on into G, which is updated.
        again = (
            generate_microbatch(networks, step_config, real, draws, requires_grad=True) for real, draws in microbatches
        )
        generator_stats, generator_gradient_norm = generator_step(
            networks,
            step_config,
            generated if reuse_fakes else again,
            discriminator_stats,
            discriminator_gradient_norm,
        )
    margin_sign, augment_probability = _mean([stats.margin_sign for stats in discriminator_stats]), zero
    if networks.augmentation is not None:
        # Last of all, so that both networks have seen this batch augmented with the same probability.
        num_real = sum(len(microbatch.real) for microbatch in generated)
        networks.augmentation.adapt(margin_sign, num_real, step_config.devices.process_group)
        augment_probability = networks.augmentation.probability
    loss, d_real, d_fake = (
        _mean([getattr(stats, name) for stats in discriminator_stats]) for name in ("loss", "d_real", "d_fake")
    )
    generator_loss, d_fake_after_update = (
        _mean([getattr(stats, name) for stats in generator_stats]) for name in ("loss", "mean_probability")
    )
    penalties = [
        _mean([stats.penalties[name] for stats in discriminator_stats]) for name in step_config.objective.penalties
    ]
    values = [loss, generator_loss, d_real, d_fake, d_fake_after_update]
    return torch.stack(
        [*values, discriminator_gradient_norm, generator_gradient_norm, margin_sign, augment_probability, *penalties]
    ).detach()


def generate_microbatch(
    networks: Networks, step_config: StepConfig, real: Batch, draws: RandomDraws, requires_grad: bool
) -> MicroBatch:
    """Return real and generated images, or their features, as D's trained layers see them.

    With `requires_grad` G's graph is kept.
    """
    labels = real.labels if step_config.conditional else None
    with step_config.devices.autocast(), nullcontext() if requires_grad else torch.no_grad():
        fake = networks.generator(draws.z, labels)
    fake, augmented_real = fake.float(), real.images
    if networks.augmentation is not None:
        assert draws.augment_real is not None and draws.augment_fake is not None
        augmented_real = networks.augmentation(augmented_real, draws.augment_real)
        fake = networks.augmentation(fake, draws.augment_fake)
    if isinstance(networks.discriminator, FeatureDiscriminator):
        with step_config.devices.autocast():
            real_features = networks.discriminator.features(augmented_real)
            return MicroBatch(real_features, networks.discriminator.features(fake), labels, draws)
    return MicroBatch(augmented_real, fake, labels, draws)


def score(discriminator: Discriminator, seen: Images | FeatureVectors, labels: Labels | None) -> CriticLogits:
    """Return D's logits for images or, if its first layers are frozen, for the features that they computed."""
    if isinstance(discriminator, FeatureDiscriminator):
        return discriminator.score(seen, labels)
    return discriminator(seen, labels)


def discriminator_step(
    networks: Networks,
    step_config: StepConfig,
    microbatches: Sequence[MicroBatch],
    apply_penalties: bool,
    penalty_factor: Scalar | float,
) -> tuple[list["DiscriminatorStats"], Scalar]:
    """Update D by all microbatches; return the statistics of each from before the update, and the gradient's norm."""
    stats: list[DiscriminatorStats] = []

    def losses() -> Iterator[Scalar]:
        for microbatch in microbatches:
            output = discriminator_forward(
                networks.discriminator,
                step_config,
                microbatch.real,
                microbatch.fake.detach(),
                microbatch.labels,
                apply_penalties,
                microbatch.draws,
            )
            stats.append(_discriminator_stats(output, step_config.loss))
            loss = output.loss
            if apply_penalties and step_config.objective.penalties:
                loss = loss + penalty_factor * _weighted_penalties(output, step_config.objective)
            yield loss / len(microbatches)

    norm = apply_gradients(
        networks.discriminator,
        networks.discriminator_optimizer,
        losses(),
        len(microbatches),
        step_config.devices,
    )
    return stats, norm


def generator_step(
    networks: Networks,
    step_config: StepConfig,
    microbatches: Iterable[MicroBatch],
    discriminator_stats: Sequence["DiscriminatorStats"],
    discriminator_gradient_norm: Scalar,
) -> tuple[list["GeneratorStats"], Scalar]:
    """Update G by all microbatches; return the statistics of each, and the gradient's norm."""
    generator_stats: list[GeneratorStats] = []
    discriminator, loss = networks.discriminator, step_config.loss

    def losses() -> Iterator[Scalar]:
        for microbatch, stats in zip(microbatches, discriminator_stats, strict=True):
            real_logits = stats.real_logits
            with step_config.devices.autocast():
                if loss.needs_real_logits:
                    with torch.no_grad():
                        real_logits = score(discriminator, microbatch.real, microbatch.labels)
                fake_logits = score(discriminator, microbatch.fake, microbatch.labels)
            value = loss.generator(real_logits, fake_logits)
            generator_stats.append(
                GeneratorStats(value.detach(), loss.mean_probability(fake_logits.detach(), real_logits))
            )
            # If D's update is skipped, G's is skipped too: 0 times a number that is not finite is not finite.
            yield value / len(discriminator_stats) + 0 * discriminator_gradient_norm

    with freeze_parameters(discriminator):
        norm = apply_gradients(
            networks.generator,
            networks.generator_optimizer,
            losses(),
            len(discriminator_stats),
            step_config.devices,
        )
    return generator_stats, norm


@dataclass(frozen=True)
class DiscriminatorOutput:
    """D's logits on both batches, its loss, and its penalties without their weights."""

    fake_logits: Logits
    real_logits: Logits
    loss: Scalar
    penalties: dict[str, Scalar]
    """All of this run; 0 in a step that does not apply them."""


@dataclass(frozen=True)
class DiscriminatorStats:
    """What is kept of D's output after its update. Nothing has a graph."""

    real_logits: Logits
    loss: Scalar
    d_real: Scalar
    d_fake: Scalar
    margin_sign: Scalar
    penalties: dict[str, Scalar]


@dataclass(frozen=True)
class GeneratorStats:
    """G's loss, and the updated D's mean probability for the same images."""

    loss: Scalar
    mean_probability: Scalar


def discriminator_forward(
    discriminator: Discriminator,
    step_config: StepConfig,
    real: Images | FeatureVectors,
    fake: Images | FeatureVectors,
    labels: Labels | None,
    apply_penalties: bool,
    draws: RandomDraws | None = None,
) -> DiscriminatorOutput:
    """Return D's logits, loss and penalties. Both batches pass apart, so that their batch statistics stay apart."""
    active = {name: find_penalty(name) for name in step_config.objective.penalties if apply_penalties}
    gradients_of = {penalty.gradient_of for penalty in active.values()}
    real = real.detach().requires_grad_("real" in gradients_of)
    fake = fake.detach().requires_grad_("fake" in gradients_of)

    def critic(seen: Images | FeatureVectors) -> CriticLogits:
        with step_config.devices.autocast():
            return score(discriminator, seen, labels)

    fake_logits = critic(fake)
    real_logits = critic(real)
    interpolation, noise = (None, None) if draws is None else (draws.interpolation, draws.noise)
    inputs = PenaltyInputs(critic, real, fake, real_logits, fake_logits, interpolation, noise)
    zero = torch.zeros((), device=real.device)
    penalties = {
        name: active[name].compute(inputs) if name in active else zero for name in step_config.objective.penalties
    }
    return DiscriminatorOutput(
        fake_logits, real_logits, step_config.loss.discriminator(real_logits, fake_logits), penalties
    )


def _weighted_penalties(output: DiscriminatorOutput, objective: ObjectiveConfig) -> Scalar:
    """Return the sum of the penalties with their weights. A penalty computed every n-th step counts n times."""
    weighted = [
        weight * find_penalty(name).coefficient * output.penalties[name] for name, weight in objective.penalties.items()
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
    """Inside the block, compute no gradient of this network's weights. Gradients still flow through it."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def apply_gradients(
    network: nn.Module, optimizer: Optimizer, losses: Iterable[Scalar], num_losses: int, devices: Devices
) -> Scalar:
    """Update one network by the sum of these losses; the gradients of the other are never computed.

    Each loss's gradient is computed before the next loss is. Returns the norm of their sum, over all processes
    together. If it or a loss is not finite, nothing is updated: every process sees the same sum, so all of them
    refuse.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    gradients, mean_loss = mean_gradients(losses, num_losses, parameters, devices.process_group)
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
    """Return the Euclidean norm of all gradients together; not finite if any number in them is not."""
    norms = torch._foreach_norm(gradients)  # pyright: ignore[reportPrivateImportUsage] - as torch's own clipping
    return torch.linalg.vector_norm(torch.stack(norms))


def _step_if_finite(is_finite: Bool[Tensor, ""], optimizer: Optimizer, devices: Devices) -> None:
    """Step unless a number is not finite. On a GPU the optimizer's kernel decides, so that the host need not wait."""
    if devices.is_async:
        # How torch.amp tells a fused optimizer to skip a step.
        optimizer.found_inf = (~is_finite).float()  # pyright: ignore[reportAttributeAccessIssue]
        optimizer.step()
    elif is_finite:
        optimizer.step()


def _mean(values: Sequence[Scalar]) -> Scalar:
    return values[0] if len(values) == 1 else torch.stack(list(values)).mean()
