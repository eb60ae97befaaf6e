"""Record each kind of training step as a CUDA graph and replay it: one launch instead of hundreds.

Does not know what a step does, only that it reads its arguments in place and launches the same kernels each time.
"""

import gc
from collections import Counter
from collections.abc import Callable, Sequence

import torch

from cardigan.hardware.out_of_memory import is_out_of_memory
from cardigan.training.inputs import StepInputs, to_device
from cardigan.training.step_types import StepKind

WARMUP_STEPS = 3
"""Steps of each kind that run without a graph before recording, so that libraries and optimizers allocate memory."""
NOT_RECORDED = (
    "recording the step as a CUDA graph ran out of memory, so its kernels are launched one by one: slower, with the "
    "same numbers"
)

Work = Callable[[StepInputs, StepKind], torch.Tensor]


class CudaGraphStep:
    """Runs `work` as one CUDA graph per kind of step, with the same numbers.

    Warmup steps are training steps too. When every kind has run `WARMUP_STEPS` times, all are recorded into one memory
    pool, the largest first. Graphs never run at the same time, so together they need as much memory as the largest. For
    one process only: several processes exchange gradients between kernels.
    """

    def __init__(
        self,
        work: Work,
        device: torch.device,
        kinds: Sequence[StepKind],
        on_message: Callable[[str], None] | None = None,
    ) -> None:
        """`kinds` are all kinds of the run. `on_message` is called with one sentence if recording fails."""
        self._work, self._device, self._kinds, self._on_message = work, device, sorted(kinds, reverse=True), on_message
        self._step_counts: Counter[StepKind] = Counter()
        self._graphs: dict[StepKind, tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}
        self._inputs: StepInputs | None = None
        self._stream = torch.cuda.Stream(device)
        self._can_record = True

    def __call__(self, inputs: StepInputs, kind: StepKind) -> torch.Tensor:
        if self._inputs is None:
            self._inputs = to_device(inputs, self._device)
        else:
            self._inputs.buffer.copy_(inputs.buffer, non_blocking=True)
        is_warm = all(self._step_counts[each] >= WARMUP_STEPS for each in self._kinds)
        if self._can_record and not self._graphs and is_warm:
            self._record(self._inputs)
        self._step_counts[kind] += 1
        if kind not in self._graphs:
            return self._run(self._inputs, kind)
        graph, result = self._graphs[kind]
        graph.replay()
        return result.clone()  # the next replay writes to the same place

    def _run(self, inputs: StepInputs, kind: StepKind) -> torch.Tensor:
        """Run one step on the recording stream, as CUDA graphs require for warmup."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            result = self._work(inputs, kind)
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        return result

    def _record(self, inputs: StepInputs) -> None:
        """Record every kind. If memory runs out, record none and run kernel by kernel from now on."""
        gc.collect()  # `torch.cuda.graph` then empties the cache, so that graphs can use the memory of earlier steps
        pool = torch.cuda.graph_pool_handle()
        try:
            for kind in self._kinds:
                graph = torch.cuda.CUDAGraph()
                # thread_local: other threads may use the GPU at the same time (a notebook, the studio)
                with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
                    result = self._work(inputs, kind)
                self._graphs[kind] = graph, result
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self._can_record = False
        if not self._can_record:
            self._graphs.clear()
            torch.cuda.empty_cache()
            if self._on_message is not None:
                self._on_message(NOT_RECORDED)


def cuda_graph_step(
    work: Work,
    device: torch.device,
    num_processes: int,
    kinds: Sequence[StepKind],
    on_message: Callable[[str], None] | None = None,
) -> Work:
    """Return the work as CUDA graphs if this is one process on a GPU, else the work itself."""
    return CudaGraphStep(work, device, kinds, on_message) if device.type == "cuda" and num_processes == 1 else work
