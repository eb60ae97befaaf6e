"""The training loop.

Does not know how networks and data are built (`experiment/build.py`), nor what is written (`recorder.py`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from cardigan.config import Config
from cardigan.data.batches import Batches
from cardigan.data.prefetch import DataLost, Prefetcher
from cardigan.run.directory import RunDirectory
from cardigan.training.budget import Budget, Reserve
from cardigan.training.ema import update_ema
from cardigan.training.finite import nonfinite_error, nonfinite_metrics
from cardigan.training.inputs import StepInputs, split_microbatches, step_inputs, to_device
from cardigan.training.real_features import find_real_features
from cardigan.training.recorder import Recorder
from cardigan.training.rollback import restore_best_checkpoint
from cardigan.training.schedule import augment_probability, is_due, learning_rates, step_kind
from cardigan.training.state import TrainState, state_tensors
from cardigan.training.step_types import Networks, StepConfig, StepKind, StepMetrics
from cardigan.training.steps import train_step

StepFn = Callable[[StepInputs, StepKind], StepMetrics]
"""One iteration on the device and the EMA update after it. The inputs are in host memory."""


@dataclass(frozen=True)
class Trainer:
    """The parts of a run that do not change during training."""

    config: Config
    batches: Batches
    step_config: StepConfig
    step: StepFn
    budget: Budget
    recorder: Recorder | None
    """None in every process except the main one."""
    run: RunDirectory | None = None
    """The run whose best checkpoint a rollback restores. Only a recorder requests a rollback."""
    prefetcher: Prefetcher | None = None
    """The source of real images if they are not on the device. `batches` then has a sample of them, for metrics."""


def fit(trainer: Trainer, state: TrainState) -> tuple[TrainState, str]:
    """Train until the budget ends. Return the last state and the reason for stopping."""
    process_group, step_seconds = trainer.step_config.devices.process_group, 0.0
    trainer.budget.start_training()
    while (reason := trainer.budget.stop_reason(state.images_seen, _reserve(trainer, step_seconds), step_seconds)) in {
        "",
        "rollback",
    }:
        if reason:
            state = roll_back(trainer, state)
            continue
        started_at, images_before = time.monotonic(), state.images_seen
        try:
            state, metrics = run_step(trainer, state)
        except DataLost:  # raised before the step starts
            if trainer.budget.received_signal:
                continue  # the signal reached the whole process group and ended the decoding workers
            if trainer.recorder is not None:
                trainer.recorder.save_checkpoint(state, evaluate=False)
            raise
        raise_if_nonfinite(trainer, state, metrics)
        if is_due(trainer.config.checkpoint_every_images, images_before, state.images_seen):
            process_group.check_replicas(state_tensors(state), state.images_seen)
        if trainer.recorder is not None:
            with process_group.pause():
                trainer.recorder.after_step(state, images_before, metrics)
            trainer.budget.stop_request = trainer.recorder.failure_policy.stop_request
        step_seconds = max(time.monotonic() - started_at, step_seconds * 0.9)
    process_group.check_replicas(state_tensors(state), state.images_seen)
    if trainer.recorder is not None:
        with process_group.pause():
            trainer.recorder.finish(state, reason)
    process_group.barrier()  # torchrun stops all processes when one exits, and the main process may still be saving
    return state, reason


def run_step(trainer: Trainer, state: TrainState) -> tuple[TrainState, StepMetrics]:
    """Return the state after one step, and the step's metrics. All randomness is a function of (seed, images_seen)."""
    config, images_before = trainer.config, state.images_seen
    set_learning_rates(state.networks, config, images_before, state.learning_rate_factor)
    set_augment_probability(state.networks, config, images_before)
    metrics = trainer.step(
        step_inputs(config, trainer.batches, images_before, trainer.step_config.devices, trainer.prefetcher),
        step_kind(config, images_before),
    )
    return replace(state, images_seen=images_before + config.batch_size), metrics


def raise_if_nonfinite(trainer: Trainer, state: TrainState, metrics: StepMetrics) -> None:
    """Raise CardiganError if the update was skipped because a loss or a gradient was not finite."""
    nonfinite = nonfinite_metrics(metrics, trainer.config.objective)
    if nonfinite and trainer.recorder is not None:
        trainer.recorder.abort(state.images_seen, nonfinite)
    if nonfinite:
        raise nonfinite_error(state.images_seen, nonfinite)


def roll_back(trainer: Trainer, state: TrainState) -> TrainState:
    """Return the state of the best checkpoint, in every process, and clear the request."""
    assert trainer.run is not None
    rolled_back_from = state.images_seen
    state = restore_best_checkpoint(trainer.run, state, trainer.step_config.devices.process_group)
    trainer.budget.reset()
    if trainer.recorder is not None:
        trainer.recorder.record_rollback(state, rolled_back_from)
    return state


def make_step(state: TrainState, batches: Batches, step_config: StepConfig) -> StepFn:
    """Return the function that runs one iteration on the device."""
    networks = state.networks
    real_features = find_real_features(networks.discriminator, batches, step_config.devices)

    def step(inputs: StepInputs, kind: StepKind) -> StepMetrics:
        inputs = to_device(inputs, step_config.devices.device)
        rank = step_config.devices.process_group.rank
        microbatches = split_microbatches(inputs, batches, step_config.gradient_accumulation, rank)
        if real_features is not None:
            microbatches = [(real_features.add_to(real, networks.augmentation), draws) for real, draws in microbatches]
        metrics = train_step(networks, step_config, microbatches, kind, inputs.penalty_factor)
        if kind.update_generator:
            update_ema(state.ema_generator, networks.generator, inputs.ema_weight)
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
                group["lr"].fill_(learning_rate)  # in place: a CUDA graph reads this tensor
            else:
                group["lr"] = learning_rate


def set_augment_probability(networks: Networks, config: Config, images_seen: int) -> None:
    if networks.augmentation is not None and config.augment.start_images:
        networks.augmentation.probability.fill_(augment_probability(config.augment, images_seen))  # in place, as above


def _reserve(trainer: Trainer, step_seconds: float) -> Reserve:
    recorder = trainer.recorder
    return Reserve(step_seconds, step_seconds) if recorder is None else recorder.reserve(step_seconds)
