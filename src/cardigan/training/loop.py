"""The training loop, whole, on one screen.

Does not know what is built (`assemble.py`), nor what is written (`recorder.py`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from cardigan.config import Config
from cardigan.data.batches import Batches
from cardigan.data.prefetch import DataLost, Prefetcher
from cardigan.run.directory import RunDirectory
from cardigan.training.budget import Budget
from cardigan.training.ema import update_ema
from cardigan.training.finite import nonfinite_error, nonfinite_metrics
from cardigan.training.inputs import StepInputs, split_microbatches, step_inputs, to_device
from cardigan.training.recorder import Recorder
from cardigan.training.rollback import restore_best_checkpoint
from cardigan.training.schedule import is_due, learning_rates, step_kind
from cardigan.training.state import TrainState, state_tensors
from cardigan.training.steps import Game, Networks, StepConfig, StepKind, StepMetrics, train_step

StepFn = Callable[[StepInputs, StepKind], StepMetrics]
"""One iteration on the device, whose inputs lie in host memory, and the step of the average that follows it."""


@dataclass(frozen=True)
class Trainer:
    """Everything that does not change while a run trains."""

    config: Config
    batches: Batches
    step_config: StepConfig
    step: StepFn
    budget: Budget
    recorder: Recorder | None
    """None in every process but the main one."""
    run: RunDirectory | None = None
    """Where a rollback finds the best checkpoint; only a recorder ever asks for one."""
    prefetcher: Prefetcher | None = None
    """Where real pictures come from if they do not lie on the device; `batches` is then a sample of them, to look at."""


def fit(trainer: Trainer, state: TrainState) -> tuple[TrainState, str]:
    """Train until the budget ends; return the last state and why it stopped."""
    process_group, step_seconds = trainer.step_config.devices.process_group, 0.0
    while (reason := trainer.budget.stop_reason(state.images_seen, step_seconds + _finish_seconds(trainer))) in {
        "",
        "rollback",
    }:
        if reason:
            state = roll_back(trainer, state)
            continue
        started_at, images_before = time.monotonic(), state.images_seen
        try:
            state, metrics = run_step(trainer, state)
        except DataLost:  # before the step began
            if trainer.budget.received_signal:
                continue  # the signal reached the whole group, and ended who decodes
            if trainer.recorder is not None:
                trainer.recorder.save_checkpoint(state, evaluate=False)
            raise
        raise_if_nonfinite(trainer, state, metrics)
        if is_due(trainer.config.checkpoint_every_images, images_before, state.images_seen):
            process_group.check_replicas(state_tensors(state), state.images_seen)
        if trainer.recorder is not None:
            trainer.recorder.after_step(state, images_before, metrics)
            trainer.budget.stop_request = trainer.recorder.failure_policy.stop_request
        step_seconds = max(time.monotonic() - started_at, step_seconds * 0.9)
    process_group.check_replicas(state_tensors(state), state.images_seen)
    if trainer.recorder is not None:
        trainer.recorder.finish(state, reason)
    process_group.barrier()  # who leaves first has torchrun stop the others, and the main one may still be saving
    return state, reason


def run_step(trainer: Trainer, state: TrainState) -> tuple[TrainState, StepMetrics]:
    """Return the state one step later, and what the step measured. All randomness is a function of (seed, images_seen)."""
    config, images_before = trainer.config, state.images_seen
    set_learning_rates(state.networks, config, images_before, state.learning_rate_factor)
    metrics = trainer.step(
        step_inputs(config, trainer.batches, images_before, trainer.step_config.devices, trainer.prefetcher),
        step_kind(config, images_before),
    )
    return replace(state, images_seen=images_before + config.batch_size), metrics


def raise_if_nonfinite(trainer: Trainer, state: TrainState, metrics: StepMetrics) -> None:
    """Raise CardiganError if the step was refused because something was not finite."""
    nonfinite = nonfinite_metrics(metrics)
    if nonfinite and trainer.recorder is not None:
        trainer.recorder.abort(state.images_seen, nonfinite)
    if nonfinite:
        raise nonfinite_error(state.images_seen, nonfinite)


def roll_back(trainer: Trainer, state: TrainState) -> TrainState:
    """Return the best state the run has kept, in every process; what was asked is done with."""
    assert trainer.run is not None
    rolled_back_from = state.images_seen
    state = restore_best_checkpoint(trainer.run, state, trainer.step_config.devices.process_group)
    trainer.budget.reset()
    if trainer.recorder is not None:
        trainer.recorder.record_rollback(state, rolled_back_from)
    return state


def make_step(state: TrainState, batches: Batches, step_config: StepConfig) -> StepFn:
    """Return the iteration of these players, with everything that happens on the device inside."""
    game = Game(state.networks, step_config, state.augmentation)

    def step(inputs: StepInputs, kind: StepKind) -> StepMetrics:
        inputs = to_device(inputs, step_config.devices.device)
        metrics = train_step(
            game, split_microbatches(inputs, batches, step_config.gradient_accumulation), kind, inputs.penalty_factor
        )
        if kind.update_generator:
            update_ema(state.ema_generator, state.networks.generator, inputs.ema_weight)
        return metrics

    return step


def set_learning_rates(networks: Networks, config: Config, images_seen: int, factor: float = 1.0) -> None:
    rates = learning_rates(config, images_seen, factor)
    for optimizer, learning_rate in (
        (networks.generator_optimizer, rates["generator"]),
        (networks.discriminator_optimizer, rates["discriminator"]),
    ):
        for group in optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(learning_rate)  # a recorded step reads it where it lies
            else:
                group["lr"] = learning_rate


def _finish_seconds(trainer: Trainer) -> float:
    return trainer.recorder.finish_seconds() if trainer.recorder is not None else 0.0
