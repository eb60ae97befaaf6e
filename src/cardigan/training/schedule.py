"""Numbers that change while a run goes on, as functions of `images_seen` alone."""

import math

from cardigan.config import AdamConfig, AverageConfig, Config, ObjectiveConfig
from cardigan.training.steps import Kind


def learning_rate(config: AdamConfig, images_seen: int) -> float:
    """Return the step size at this point: a linear rise, then constant, then falling as 1/sqrt(images)."""
    rate = config.learning_rate
    if images_seen < config.warm_up_images:
        rate *= (images_seen + 1) / config.warm_up_images
    if config.decay_images and images_seen > config.decay_images:
        rate *= math.sqrt(config.decay_images / images_seen)
    return rate


def learning_rates(config: Config, images_seen: int, factor: float = 1.0) -> dict[str, float]:
    """Return both players' step sizes at this point; `factor` is what rollbacks have left of them."""
    adams = {"generator": config.generator_optimizer, "discriminator": config.discriminator_optimizer}
    return {player: factor * learning_rate(adam, images_seen) for player, adam in adams.items()}


def average_weight(config: AverageConfig, images_seen: int, batch: int) -> float:
    """Return how much of the live generator one step mixes into the average: 1 - 2^(-batch / half-life).

    `images_seen` counts this step's batch too. The half-life is capped at `ramp_up * images_seen` while the run is young.
    """
    half_life = float(config.half_life_images)
    if config.ramp_up:
        half_life = min(half_life, images_seen * config.ramp_up)
    return 1 - 0.5 ** (batch / half_life) if half_life > 0 else 1.0


def penalty_factor(config: ObjectiveConfig, images_seen: int) -> float:
    """Return what all penalties are multiplied by: from `penalty_start` to 1 along half a cosine."""
    if images_seen >= config.penalty_settle_images:
        return 1.0
    return 1 + (config.penalty_start - 1) * (1 + math.cos(math.pi * images_seen / config.penalty_settle_images)) / 2


def kind_of_step(config: Config, images_seen: int) -> Kind:
    """Return what the step after `images_seen` does: penalties are lazy (arXiv:1912.04958, appendix B), and G may wait for D."""
    number = images_seen // config.batch
    return Kind(number % config.objective.penalty_interval == 0, (number + 1) % config.discriminator_steps == 0)


def step_kinds(config: Config) -> tuple[Kind, ...]:
    """Return every kind of step that a run of this config has, each once."""
    cycle = math.lcm(config.objective.penalty_interval, config.discriminator_steps)
    return tuple(dict.fromkeys(kind_of_step(config, number * config.batch) for number in range(cycle)))


def is_due(every: int, before: int, after: int) -> bool:
    """Return whether a multiple of `every` images lies in (before, after]."""
    return before // every != after // every
