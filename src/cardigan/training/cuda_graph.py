"""On a GPU, each kind of training step recorded as a CUDA graph and replayed: one launch instead of hundreds.

Does not know what a step does, only that it reads its arguments where they lie and is the same work each time.
"""

import gc
from collections import Counter
from collections.abc import Callable, Sequence

import torch

from cardigan.hardware.memory import is_out_of_memory
from cardigan.training.inputs import StepInputs, to_device
from cardigan.training.steps import StepKind

WARMUP_STEPS = 3
"""Steps of each kind that run one kernel at a time before any is recorded: libraries and optimizers then have allocated
what they need."""
NOT_RECORDED = "recording the step as a CUDA graph ran out of memory, so its kernels are launched one by one: slower, with the same numbers"

Work = Callable[[StepInputs, StepKind], torch.Tensor]


class CudaGraphStep:
    """The work, as a CUDA graph for each kind of step. Gives the same numbers as the work itself.

    The first steps of each kind are steps of the training too. When every kind has run often enough, all are recorded, the
    one that does most first, into one memory pool: graphs never run at the same time, so together they need as much
    memory as the largest. For one process only: several exchange gradients between kernels.
    """

    def __init__(
        self, work: Work, device: torch.device, kinds: Sequence[StepKind], tell: Callable[[str], None] | None = None
    ) -> None:
        """`kinds` are all that will come; `tell` is called with one sentence if the work cannot be recorded."""
        self._work, self._device, self._kinds, self._tell = work, device, sorted(kinds, reverse=True), tell
        self._seen: Counter[StepKind] = Counter()
        self._recorded: dict[StepKind, tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}
        self._inputs: StepInputs | None = None
        self._stream = torch.cuda.Stream(device)
        self._records = True

    def __call__(self, given: StepInputs, kind: StepKind) -> torch.Tensor:
        if self._inputs is None:
            self._inputs = to_device(given, self._device)
        else:
            self._inputs.buffer.copy_(given.buffer, non_blocking=True)
        if self._records and not self._recorded and all(self._seen[each] >= WARMUP_STEPS for each in self._kinds):
            self._record(self._inputs)
        self._seen[kind] += 1
        if kind not in self._recorded:
            return self._run(self._inputs, kind)
        graph, result = self._recorded[kind]
        graph.replay()
        return result.clone()  # the next replay writes to the same place

    def _run(self, inputs: StepInputs, kind: StepKind) -> torch.Tensor:
        """Run one step on the stream that will record, as recording demands of what comes before it."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            result = self._work(inputs, kind)
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        return result

    def _record(self, inputs: StepInputs) -> None:
        """Record every kind, or none from now on where memory runs out: what fits kernel by kernel has to run."""
        gc.collect()  # `torch.cuda.graph` then empties the cache of the steps so far, whose memory the graphs take over
        pool = torch.cuda.graph_pool_handle()
        try:
            for kind in self._kinds:
                graph = torch.cuda.CUDAGraph()
                # thread_local: other threads may use the GPU meanwhile (a notebook, the studio)
                with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
                    result = self._work(inputs, kind)
                self._recorded[kind] = graph, result
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self._records = False
        if not self._records:
            self._recorded.clear()
            torch.cuda.empty_cache()
            if self._tell is not None:
                self._tell(NOT_RECORDED)


def cuda_graph_step(
    work: Work,
    device: torch.device,
    num_processes: int,
    kinds: Sequence[StepKind],
    tell: Callable[[str], None] | None = None,
) -> Work:
    """Return the work in the form that runs fastest on this device."""
    return CudaGraphStep(work, device, kinds, tell) if device.type == "cuda" and num_processes == 1 else work
