"""Numbers that change while a run goes on, as functions of `images_seen` alone."""

import math
from collections.abc import Callable
from typing import TypeAlias

from cardigan.config import Config
from cardigan.config_parts import AugmentConfig, EmaConfig, ObjectiveConfig, OptimizerConfig
from cardigan.errors import unknown
from cardigan.training.step_types import StepKind

ScheduleFn: TypeAlias = Callable[[OptimizerConfig, int], float]
"""From settings and images seen to the factor of the learning rate."""


def inverse_sqrt(config: OptimizerConfig, images_seen: int) -> float:
    """Return 1 up to `decay_start_images`, then its square root divided by that of the images seen."""
    start = config.decay_start_images
    return math.sqrt(start / images_seen) if start and images_seen > start else 1.0


def constant(config: OptimizerConfig, images_seen: int) -> float:
    return 1.0


def linear(config: OptimizerConfig, images_seen: int) -> float:
    """Return 1 up to `decay_start_images`, then a straight line to 0 at `decay_end_images`."""
    return 1 - _decay_progress(config, images_seen)


def cosine(config: OptimizerConfig, images_seen: int) -> float:
    """Return 1 up to `decay_start_images`, then half a cosine to 0 at `decay_end_images` (arXiv:1608.03983, eq. 5)."""
    return (1 + math.cos(math.pi * _decay_progress(config, images_seen))) / 2


def _decay_progress(config: OptimizerConfig, images_seen: int) -> float:
    """Return the fraction of the decay that is over, from 0 to 1."""
    start, end = config.decay_start_images, config.decay_end_images
    return min(max(0, images_seen - start) / (end - start), 1.0)


LEARNING_RATE_SCHEDULES: dict[str, ScheduleFn] = {
    "inverse_sqrt": inverse_sqrt,
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
}


def find_schedule(name: str) -> ScheduleFn:
    """Return a schedule of the learning rate by its name; raises CardiganError for an unknown one."""
    if name not in LEARNING_RATE_SCHEDULES:
        raise unknown("schedule", name, LEARNING_RATE_SCHEDULES)
    return LEARNING_RATE_SCHEDULES[name]


def learning_rate(config: OptimizerConfig, images_seen: int) -> float:
    """Return the learning rate at this point: linear warmup, times the factor of the schedule."""
    rate = config.learning_rate
    if images_seen < config.warmup_images:
        rate *= (images_seen + 1) / config.warmup_images
    return rate * find_schedule(config.schedule)(config, images_seen)


def learning_rates(config: Config, images_seen: int, factor: float = 1.0) -> dict[str, float]:
    """Return the learning rates of both networks at this point, times `factor`, which every rollback halves."""
    optimizer_configs = {"generator": config.generator_optimizer, "discriminator": config.discriminator_optimizer}
    return {
        network: factor * learning_rate(optimizer_config, images_seen)
        for network, optimizer_config in optimizer_configs.items()
    }


def augment_probability(config: AugmentConfig, images_seen: int) -> float:
    """Return the fixed probability at this point: 0 up to `start_images`, then a straight line to its full value."""
    if not config.start_images:
        return config.probability
    return config.probability * min(max(0.0, images_seen / config.start_images - 1), 1.0)


def ema_weight(config: EmaConfig, images_seen: int, batch_size: int) -> float:
    """Return the EMA weight of one step, 1 - 2^(-batch / half-life): how far the EMA moves toward the generator.

    `images_seen` counts this step's batch too. The half-life is capped at `rampup_ratio * images_seen` early in a run.
    """
    half_life = float(config.half_life_images)
    if config.rampup_ratio:
        half_life = min(half_life, images_seen * config.rampup_ratio)
    return 1 - 0.5 ** (batch_size / half_life) if half_life > 0 else 1.0


def penalty_factor(config: ObjectiveConfig, images_seen: int) -> float:
    """Return the factor of all penalties, which decays from `penalty_initial_factor` to 1 along half a cosine."""
    if images_seen >= config.penalty_decay_images:
        return 1.0
    return (
        1
        + (config.penalty_initial_factor - 1) * (1 + math.cos(math.pi * images_seen / config.penalty_decay_images)) / 2
    )


def step_kind(config: Config, images_seen: int) -> StepKind:
    """Return what the step after `images_seen` does: penalties are lazy (arXiv:1912.04958, appendix B), and G may
    wait for D."""
    step = images_seen // config.batch_size
    return StepKind(step % config.objective.penalty_interval == 0, (step + 1) % config.n_critic == 0)


def step_kinds(config: Config) -> tuple[StepKind, ...]:
    """Return every kind of step that a run of this config has, each once."""
    cycle = math.lcm(config.objective.penalty_interval, config.n_critic)
    return tuple(dict.fromkeys(step_kind(config, number * config.batch_size) for number in range(cycle)))


def is_due(interval_images: int, images_before: int, images_after: int) -> bool:
    """Return whether a multiple of `interval_images` images lies in (before, after]."""
    return images_before // interval_images != images_after // interval_images
