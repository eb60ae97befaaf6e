"""One training step of G and D, in the tutorial's five parts.

Does not know where images and random numbers come from, nor what happens to the numbers it returns.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from cardigan.config_parts import ObjectiveConfig
from cardigan.data.batches import Batch
from cardigan.nets.activations import generate_with_maps
from cardigan.nets.interface import Discriminator, FeatureDiscriminator
from cardigan.objective.correspondence import correspondence
from cardigan.objective.losses import Loss
from cardigan.objective.penalties import CriticLogits, PenaltyInputs, find_penalty
from cardigan.shapes import FeatureVectors, Images, Labels, Logits, Scalar
from cardigan.training.step_types import FULL_STEP, MicroBatch, Networks, RandomDraws, StepConfig, StepKind, StepMetrics
from cardigan.training.updates import apply_gradients, freeze_parameters


def train_step(
    networks: Networks,
    step_config: StepConfig,
    microbatches: Sequence[tuple[Batch, RandomDraws]],
    kind: StepKind = FULL_STEP,
    penalty_factor: Scalar | float = 1.0,
) -> StepMetrics:
    """Update both networks by one batch, given whole or in microbatches, and return what `metric_names` names.

    - `networks`: both networks and their optimizers, changed in place.
    - `step_config`: the objective and the devices.
    - `microbatches`: pairs of real images and random numbers; one pair for a whole batch.
    - `kind`: whether penalties are applied and G is updated. Default: both.
    - `penalty_factor`: multiplies all penalties, as their schedule says.

    The result is one float per metric, [metric]. Where a gradient is not finite, neither network changes, and its norm
    in the result is not finite either.

    Examples:
        >>> import cardigan
        >>> import torch
        >>> config = cardigan.override(cardigan.config_for("mnist"), {"conditional": False, "generator.width": 4})
        >>> spec = cardigan.ImageSpec(channels=1, height=32, width=32, num_classes=0)
        >>> G, D = cardigan.build_generator(config, spec), cardigan.build_discriminator(config, spec)
        >>> networks = cardigan.Networks(G, D, torch.optim.Adam(G.parameters()), torch.optim.Adam(D.parameters()))
        >>> devices = cardigan.Devices(torch.device("cpu"))
        >>> step = cardigan.StepConfig(cardigan.find_loss("hinge"), config.objective, False, devices)
        >>> batch = cardigan.Batches(cardigan.load_mnist("test"), config.data, seed=0).batch_at(0, 16)
        >>> draws = cardigan.RandomDraws(cardigan.training_latents("normal", 16, config.latent.size, 0, 0))
        >>> metrics = cardigan.train_step(networks, step, [(batch, draws)])
        >>> bool(metrics.isfinite().all())
        True

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
    generator_stats, generator_gradient_norm = [GeneratorStats(zero, zero, zero)], zero
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
    values += [discriminator_gradient_norm, generator_gradient_norm, margin_sign, augment_probability, *penalties]
    if step_config.objective.correspondence:
        values.append(_mean([stats.correspondence for stats in generator_stats]))
    return torch.stack(values).detach()


def generate_microbatch(
    networks: Networks, step_config: StepConfig, real: Batch, draws: RandomDraws, requires_grad: bool
) -> MicroBatch:
    """Return real and generated images, or their features, as D's trained layers see them.

    With `requires_grad` G's graph is kept.
    """
    labels = real.labels if step_config.conditional else None
    maps: tuple[Tensor, ...] = ()
    with step_config.devices.autocast(), nullcontext() if requires_grad else torch.no_grad():
        if step_config.objective.correspondence:
            fake, maps = generate_with_maps(networks.generator, draws.z, labels)
        else:
            fake = networks.generator(draws.z, labels)
    fake, augmented_real = fake.float(), real.images
    if networks.augmentation is not None and not networks.augmentation.is_off(step_config.devices):
        assert draws.augment_real is not None and draws.augment_fake is not None
        if real.features is None:
            augmented_real = networks.augmentation(augmented_real, draws.augment_real)
        fake = networks.augmentation(fake, draws.augment_fake)
    if isinstance(networks.discriminator, FeatureDiscriminator):
        with step_config.devices.autocast():
            features, first = networks.discriminator.features, real.first
            real_features = features(augmented_real, first) if real.features is None else real.features
            return MicroBatch(real_features, features(fake, first), labels, draws, maps)
    return MicroBatch(augmented_real, fake, labels, draws, maps)


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
            distance = _correspondence(networks, step_config, microbatch)
            probability = loss.mean_probability(fake_logits.detach(), real_logits)
            generator_stats.append(GeneratorStats(value.detach(), probability, distance.detach()))
            if step_config.objective.correspondence:
                value = value + step_config.objective.correspondence * distance
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


def _correspondence(networks: Networks, step_config: StepConfig, microbatch: MicroBatch) -> Scalar:
    """Return how far similarities between this microbatch's images are from those of the model at the start."""
    if networks.start_generator is None:
        return torch.zeros((), device=microbatch.draws.z.device)
    with step_config.devices.autocast(), torch.no_grad():
        _, start_maps = generate_with_maps(networks.start_generator, microbatch.draws.z, microbatch.labels)
    return correspondence(microbatch.maps, start_maps)


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
    """G's adversarial loss, the updated D's mean probability for the same images, and the correspondence."""

    loss: Scalar
    mean_probability: Scalar
    correspondence: Scalar


def discriminator_forward(
    discriminator: Discriminator,
    step_config: StepConfig,
    real: Images | FeatureVectors,
    fake: Images | FeatureVectors,
    labels: Labels | None,
    apply_penalties: bool,
    draws: RandomDraws | None = None,
) -> DiscriminatorOutput:
    """Return D's logits, loss and penalties.

    Both batches pass apart, so that their batch statistics stay apart; together where D has none.
    """
    active = {name: find_penalty(name) for name in step_config.objective.penalties if apply_penalties}
    gradients_of = {penalty.gradient_of for penalty in active.values()}
    real = real.detach().requires_grad_("real" in gradients_of)
    fake = fake.detach().requires_grad_("fake" in gradients_of)

    def critic(seen: Images | FeatureVectors) -> CriticLogits:
        with step_config.devices.autocast():
            return score(discriminator, seen, None if labels is None else labels.repeat(len(seen) // len(labels)))

    if not active and isinstance(discriminator, FeatureDiscriminator) and not discriminator.couples_images:
        fake_logits, real_logits = critic(torch.cat([fake, real])).chunk(2)
    else:
        fake_logits, real_logits = critic(fake), critic(real)
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


def _mean(values: Sequence[Scalar]) -> Scalar:
    return values[0] if len(values) == 1 else torch.stack(list(values)).mean()
