"""On a GPU, one iteration recorded as a CUDA graph and replayed: one launch instead of hundreds.

Does not know what an iteration does, only that it reads its arguments where they lie and is the same work each time.
"""

from collections import Counter
from collections.abc import Callable

import torch

from cardigan.training.inputs import Inputs
from cardigan.training.steps import Kind

WARM_UP_STEPS = 3
"""Steps of each kind played one kernel at a time before recording, so that libraries and optimizers have allocated what they need."""

Work = Callable[[Inputs, Kind], torch.Tensor]


class Replayed:
    """The work, as a CUDA graph per kind of step. The first steps of a kind are real steps too: nothing is computed to be thrown away.

    Gives the same numbers as the work itself. One process only: gradients of several are exchanged between kernels.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._played: Counter[Kind] = Counter()
        self._graphs: dict[Kind, torch.cuda.CUDAGraph] = {}
        self._inputs: Inputs | None = None
        self._results: dict[Kind, torch.Tensor] = {}
        self._side = torch.cuda.Stream()

    def __call__(self, given: Inputs, kind: Kind) -> torch.Tensor:
        if self._inputs is None:
            self._inputs = Inputs(*(tensor.clone() for tensor in given))
        for place, tensor in zip(self._inputs, given, strict=True):
            place.copy_(tensor)
        self._played[kind] += 1
        if self._played[kind] <= WARM_UP_STEPS:
            return self._aside(kind)
        if kind not in self._graphs:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._results[kind] = self._work(self._inputs, kind)
            self._graphs[kind] = graph
        self._graphs[kind].replay()
        return self._results[kind].clone()  # the next replay writes to the same place

    def _aside(self, kind: Kind) -> torch.Tensor:
        """Play one step on a stream of its own, as recording demands of what comes before it."""
        assert self._inputs is not None
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            result = self._work(self._inputs, kind)
        torch.cuda.current_stream().wait_stream(self._side)
        return result


def replayed(work: Work, device: torch.device, num_processes: int) -> Work:
    """Return the work in the form that runs fastest on this device."""
    return Replayed(work) if device.type == "cuda" and num_processes == 1 else work
