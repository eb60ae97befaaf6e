"""The training loop, whole, on one screen.

Does not know what is built (`assemble.py`), nor what is written (`recorder.py`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from cardigan.config import Config
from cardigan.data.batches import Batches
from cardigan.data.feed import Feed, PicturesLost
from cardigan.run.directory import RunDirectory
from cardigan.training.average import update_average
from cardigan.training.budget import Budget
from cardigan.training.finite import broken, seen_broken
from cardigan.training.inputs import Inputs, in_parts, inputs_at, sent
from cardigan.training.recorder import Recorder
from cardigan.training.rollback import return_to_best
from cardigan.training.schedule import is_due, kind_of_step, learning_rates
from cardigan.training.state import TrainState, state_tensors
from cardigan.training.steps import Game, Kind, Measurements, Players, Rules, iterate

Play = Callable[[Inputs, Kind], Measurements]
"""One iteration on the device, whose inputs lie in host memory, and the step of the average that follows it."""


@dataclass(frozen=True)
class Trial:
    """Everything that does not change while a run trains."""

    config: Config
    batches: Batches
    rules: Rules
    play: Play
    budget: Budget
    recorder: Recorder | None
    """None in every process but the main one."""
    run: RunDirectory | None = None
    """Where a rollback finds the best checkpoint; only a recorder ever asks for one."""
    feed: Feed | None = None
    """Where real pictures come from if they do not lie on the device; `batches` is then a sample of them, to look at."""


def fit(trial: Trial, state: TrainState) -> tuple[TrainState, str]:
    """Train until the budget ends; return the last state and why it stopped."""
    processes, step_seconds = trial.rules.devices.processes, 0.0
    while (reason := trial.budget.reason(state.images_seen, step_seconds + _leaving_seconds(trial))) in {"", "rollback"}:
        if reason:
            state = roll_back(trial, state)
            continue
        began, before = time.monotonic(), state.images_seen
        try:
            state, measured = advance(trial, state)
        except PicturesLost:  # before the step began
            if trial.budget.signalled:
                continue  # the signal reached the whole group, and ended who decodes
            if trial.recorder is not None:
                trial.recorder.save(state, judged=False)
            raise
        stop_if_broken(trial, state, measured)
        if is_due(trial.config.checkpoint_every, before, state.images_seen):
            processes.check_replicas(state_tensors(state), state.images_seen)
        if trial.recorder is not None:
            trial.recorder.after_step(state, before, measured)
            trial.budget.asked = trial.recorder.watch.asked
        step_seconds = max(time.monotonic() - began, step_seconds * 0.9)
    processes.check_replicas(state_tensors(state), state.images_seen)
    if trial.recorder is not None:
        trial.recorder.finish(state, reason)
    processes.wait()  # who leaves first has torchrun stop the others, and the main one may still be saving
    return state, reason


def advance(trial: Trial, state: TrainState) -> tuple[TrainState, Measurements]:
    """Return the state one step later, and what the step measured. All randomness is a function of (seed, images_seen)."""
    config, before = trial.config, state.images_seen
    set_learning_rates(state.players, config, before, state.learning_rate_factor)
    measured = trial.play(inputs_at(config, trial.batches, before, trial.rules.devices, trial.feed), kind_of_step(config, before))
    return replace(state, images_seen=before + config.batch), measured


def stop_if_broken(trial: Trial, state: TrainState, measured: Measurements) -> None:
    """Raise CardiganError if the step was refused because something was not finite."""
    bad = seen_broken(measured)
    if bad and trial.recorder is not None:
        trial.recorder.break_off(state.images_seen, bad)
    if bad:
        raise broken(state.images_seen, bad)


def roll_back(trial: Trial, state: TrainState) -> TrainState:
    """Return the best state the run has kept, in every process; what was asked is done with."""
    assert trial.run is not None
    left_at = state.images_seen
    state = return_to_best(trial.run, state, trial.rules.devices.processes)
    trial.budget.begin_anew()
    if trial.recorder is not None:
        trial.recorder.rolled_back(state, left_at)
    return state


def playing(state: TrainState, batches: Batches, rules: Rules) -> Play:
    """Return the iteration of these players, with everything that happens on the device inside."""
    game = Game(state.players, rules, state.augmentation)

    def play(inputs: Inputs, kind: Kind) -> Measurements:
        inputs = sent(inputs, rules.devices.device)
        measured = iterate(game, in_parts(inputs, batches, rules.parts), kind, inputs.penalty_factor)
        if kind.generator_learns:
            update_average(state.average, state.players.generator, inputs.average_weight)
        return measured

    return play


def set_learning_rates(players: Players, config: Config, images_seen: int, factor: float = 1.0) -> None:
    rates = learning_rates(config, images_seen, factor)
    for optimizer, rate in ((players.generator_optimizer, rates["generator"]), (players.discriminator_optimizer, rates["discriminator"])):
        for group in optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)  # a recorded step reads it where it lies
            else:
                group["lr"] = rate


def _leaving_seconds(trial: Trial) -> float:
    return trial.recorder.leaving_seconds() if trial.recorder is not None else 0.0
