"""Back to the best checkpoint, with both learning rates halved. All processes do it together.

Does not know why: `health/policy.py` asked for it.
"""

from dataclasses import replace

from cardigan.run.checkpoint import best_checkpoint, read_checkpoint, rollback_to
from cardigan.run.directory import RunDirectory
from cardigan.training.distributed import ProcessGroup
from cardigan.training.state import TrainState, load_state_tensors


def restore_best_checkpoint(run: RunDirectory, state: TrainState, process_group: ProcessGroup) -> TrainState:
    """Return the state of the best checkpoint, to be trained with half the learning rates of `state`.

    From then on it is the newest checkpoint, and the factor is in it, so that a resumed run goes on from there with the same bits.
    """
    best = best_checkpoint(run.checkpoints)
    assert best is not None
    tensors, facts = read_checkpoint(best)
    load_state_tensors(state, tensors)
    learning_rate_factor = state.learning_rate_factor / 2
    process_group.barrier()  # nobody reads any more
    if process_group.is_main:
        rollback_to(best, learning_rate_factor)
    return replace(state, images_seen=facts.images_seen, learning_rate_factor=learning_rate_factor)
