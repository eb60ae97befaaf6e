"""Back to the best checkpoint, with both learning rates halved. All processes do it together.

Does not know why: `watch.py` asked for it.
"""

from dataclasses import replace

from cardigan.run.checkpoint import best_checkpoint, read_checkpoint, return_to
from cardigan.run.directory import RunDirectory
from cardigan.training.processes import Processes
from cardigan.training.state import TrainState, load_state_tensors


def return_to_best(run: RunDirectory, state: TrainState, processes: Processes) -> TrainState:
    """Return the state of the best checkpoint, to be trained with half the learning rates of `state`.

    From then on it is the newest checkpoint, and the factor is in it, so that a resumed run goes on from there with the same bits.
    """
    best = best_checkpoint(run.checkpoints)
    assert best is not None
    tensors, facts = read_checkpoint(best)
    load_state_tensors(state, tensors)
    factor = state.learning_rate_factor / 2
    processes.wait()  # nobody reads any more
    if processes.is_main:
        return_to(best, factor)
    return replace(state, images_seen=facts.images_seen, learning_rate_factor=factor)
