"""Restore the best checkpoint and halve both learning rates. All processes do this together.

Does not know the cause: `health/policy.py` requests the rollback.
"""

from dataclasses import replace

from cardigan.run.checkpoint import best_checkpoint, read_checkpoint, rollback_to
from cardigan.run.directory import RunDirectory
from cardigan.training.distributed import ProcessGroup
from cardigan.training.state import TrainState, load_state_tensors


def restore_best_checkpoint(run: RunDirectory, state: TrainState, process_group: ProcessGroup) -> TrainState:
    """Return the state of the best checkpoint, with half the learning rates of `state`.

    Newer checkpoints are removed and the new factor is saved, so that a resumed run ends with the same bits.
    """
    best = best_checkpoint(run.checkpoints)
    assert best is not None
    tensors, metadata = read_checkpoint(best)
    load_state_tensors(state, tensors)
    learning_rate_factor = state.learning_rate_factor / 2
    process_group.barrier()  # every process has read the checkpoint
    if process_group.is_main:
        rollback_to(best, learning_rate_factor)
    return replace(state, images_seen=metadata.images_seen, learning_rate_factor=learning_rate_factor)
