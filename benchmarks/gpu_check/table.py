"""The parts by name, with their questions and time limits.

A part is imported when it is run, so that the parent process does not import PyTorch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from gpu_check.part import Result, Settings

MAX_TOTAL_SECONDS = 540


@dataclass(frozen=True)
class Part:
    """One part of the check."""

    question: str
    module: str
    """The module whose function `run` is the part."""
    limit_seconds: int

    def run(self, settings: Settings, result: Result) -> None:
        run: Callable[[Settings, Result], None] = import_module(self.module).run
        run(settings, result)


PARTS = {
    "devices": Part(
        "Which machine is it, and does each device name mean the right device?", "gpu_check.device_names", 15
    ),
    "equality": Part(
        "Do recorded, eager and resumed steps give the same bits, for every recipe and option?",
        "gpu_check.equality",
        100,
    ),
    "tests": Part("Do the tests that need a GPU pass?", "gpu_check.marked_tests", 45),
    "kill": Part("Does a run that is killed and resumed end with the same bytes?", "gpu_check.kill_and_resume", 45),
    "rollback": Part(
        "Does a run that returns to its best checkpoint continue with the same bits?", "gpu_check.rollback", 25
    ),
    "out-of-memory": Part(
        "Does a run that does not fit into memory continue with smaller microbatches?", "gpu_check.out_of_memory", 30
    ),
    "sampling": Part(
        "Do GPU and CPU generate the same images, and is sampling on a GPU repeatable?", "gpu_check.sampling", 25
    ),
    "serving": Part("Does the server return correct images, and how many per second?", "gpu_check.http_serving", 30),
    "speed": Part(
        "How fast is training, compared with a plain loop and a bf16 matrix product?", "gpu_check.training_speed", 130
    ),
    "promise": Part(
        "How long does `mnist` take to reach the quality that its recipe promises?", "gpu_check.time_to_promise", 50
    ),
    "memory": Part("Does memory stay flat over 500 iterations?", "gpu_check.memory_growth", 25),
    "profile": Part("Which kernels take most of the time?", "gpu_check.kernel_times", 20),
}
