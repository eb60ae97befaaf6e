"""The training loop, whole, on one screen.

Does not know what is built (`assemble.py`), nor what is written (`recorder.py`).
"""

import time
from dataclasses import dataclass, replace

from cardigan.config import Config
from cardigan.data.batches import Batches
from cardigan.latents import training_latents
from cardigan.training.average import update_average
from cardigan.training.budget import Budget
from cardigan.training.recorder import Recorder
from cardigan.training.schedule import average_weight, learning_rate
from cardigan.training.state import TrainState
from cardigan.training.steps import Players, Rules, iterate


@dataclass(frozen=True)
class Trial:
    """Everything that does not change while a run trains."""

    config: Config
    batches: Batches
    rules: Rules
    budget: Budget
    recorder: Recorder | None
    """None in every process but the main one."""


def fit(trial: Trial, state: TrainState) -> tuple[TrainState, str]:
    """Train until the budget ends; return the last state and why it stopped."""
    step_seconds = 0.0
    while not (reason := trial.budget.reason(state.images_seen, step_seconds + _leaving_seconds(trial))):
        began = time.monotonic()
        state = advance(trial, state)
        step_seconds = max(time.monotonic() - began, step_seconds * 0.9)
    if trial.recorder is not None:
        trial.recorder.finish(state, reason)
    return state, reason


def advance(trial: Trial, state: TrainState) -> TrainState:
    """Return the state one step later. All randomness is a function of (seed, images_seen)."""
    config, before, after = trial.config, state.images_seen, state.images_seen + trial.config.batch
    share = trial.rules.devices.share(config.batch)
    real = trial.batches.at(before, config.batch, share)
    z = training_latents(config.latent.distribution, config.batch, config.latent.size, config.seed, before)[share].to(real.images.device)
    set_learning_rates(state.players, config, before)
    penalise = (before // config.batch) % config.objective.penalty_interval == 0
    measured = iterate(state.players, trial.rules, real, z, penalise)
    update_average(state.average, state.players.generator, average_weight(config.average, after, config.batch))
    state = replace(state, images_seen=after)
    if trial.recorder is not None:
        trial.recorder.after_step(state, before, measured)
    return state


def set_learning_rates(players: Players, config: Config, images_seen: int) -> None:
    for optimizer, adam in (
        (players.generator_optimizer, config.generator_optimizer),
        (players.discriminator_optimizer, config.discriminator_optimizer),
    ):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(adam, images_seen)


def _leaving_seconds(trial: Trial) -> float:
    """Return what the last sample sheet and the last save will take."""
    return trial.recorder.drawing_seconds + trial.recorder.saving_seconds if trial.recorder is not None else 0.0
