"""Rollback to the best checkpoint: the run continues with the same bits, recorded, eager, or resumed afterwards.

The scores are scripted, so that every run gets worse at the same two checkpoints.
"""

from pathlib import Path
from typing import Any

from cardigan.api import read_events
from cardigan.experiment.finished_run import Run
from cardigan.run.checkpoint import load_latest_checkpoint
from gpu_check.part import Result, Settings
from gpu_check.small_runs import eager_steps, last_tensors, trained
from gpu_check.small_training import different_bits

BATCH = 16
STEPS = 8
"""Steps between checkpoints. Every kind is recorded before the best one, and replayed before and after the rollback."""
CHECKPOINTS, INTERRUPTED = 12, 9
"""Checkpoints of the whole run, and of the interrupted one."""


def run(settings: Settings, result: Result) -> None:
    every = BATCH * (2 if settings.tiny else STEPS)
    small = {"batch_size": BATCH, "generator.width": 8, "discriminator.width": 8, "checkpoint_every_images": every}
    changes = {**small, "on_failure": "rollback", "device": settings.device}
    whole = scored(settings.folder / "whole", every, CHECKPOINTS, changes)
    back = [event for event in read_events(whole.path / "journal.jsonl") if event.kind == "rollback"]
    result.add(rollbacks=len(back), images_seen=whole.images_seen, learning_rate_factor=factor_of(whole))
    result.check(
        [(event.images_seen, event.values["rolled_back_from"]) for event in back] == [(5 * every, 7 * every)],
        f"unexpected rollbacks: {back}",
    )
    result.check(whole.images_seen == CHECKPOINTS * every, f"ended after {whole.images_seen} images")
    result.check(factor_of(whole) == 0.5, f"the learning rates are multiplied by {factor_of(whole)}, not by 0.5")

    scored(settings.folder / "resumed", every, INTERRUPTED, changes)
    resumed = scored(settings.folder / "resumed", every, CHECKPOINTS, changes, resume=True, good=True)
    same(result, "a run resumed after the rollback", resumed, whole)
    if not settings.on_gpu:
        result.skip("recorded steps", "no GPU: all steps are eager")
        return
    with eager_steps():
        same(result, "an eager run", scored(settings.folder / "eager", every, CHECKPOINTS, changes), whole)


def scored(
    out: Path, every: int, checkpoints: int, changes: dict[str, Any], resume: bool = False, good: bool = False
) -> Run:
    """Train with scores that improve until the fifth checkpoint and are then far worse twice, unless `good`."""
    better = {every * number: [100.0 - 10 * number] for number in range(1, 6)}
    scores = {**better, 6 * every: [600.0], 7 * every: [600.0]}
    return trained(out, every * checkpoints, changes, resume, {} if good else scores)


def same(result: Result, what: str, ours: Run, theirs: Run) -> None:
    tensors = last_tensors(ours)
    different = different_bits(tensors, last_tensors(theirs))
    result.check(bool(tensors) and not different, f"{what}: {different}")


def factor_of(run: Run) -> float | None:
    found = load_latest_checkpoint(run.path / "checkpoints")
    return None if found is None else found[1].learning_rate_factor
