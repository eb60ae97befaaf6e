"""The parts by name: what each of them asks, and how long it may take.

Imports no part before it is run, so that the parent process needs no PyTorch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from gpu_check.part import Result, Settings

MOST_SECONDS = 540


@dataclass(frozen=True)
class Part:
    """One part of the check."""

    question: str
    module: str
    """Its function `run` is the part."""
    limit_seconds: int

    def run(self, settings: Settings, result: Result) -> None:
        run: Callable[[Settings, Result], None] = import_module(self.module).run
        run(settings, result)


PARTS = {
    "devices": Part(
        "Which machine is it, and does each name of a device mean the right one?", "gpu_check.device_names", 15
    ),
    "equality": Part(
        "Do recorded, eager and resumed steps give the same bits, for every recipe and option?",
        "gpu_check.equality",
        100,
    ),
    "tests": Part("Do the tests that need a GPU pass?", "gpu_check.marked_tests", 45),
    "kill": Part("Does a run that is killed and resumed end with the same bytes?", "gpu_check.kill_and_resume", 45),
    "rollback": Part(
        "Does a run that returns to its best checkpoint go on with the same bits?", "gpu_check.rollback", 25
    ),
    "out-of-memory": Part(
        "Does a run that does not fit into memory go on in smaller parts?", "gpu_check.out_of_memory", 30
    ),
    "sampling": Part(
        "Do a GPU and a CPU draw the same images, and a GPU the same ones twice?", "gpu_check.sampling", 25
    ),
    "serving": Part("Does the server give the right images, and how many a second?", "gpu_check.http_serving", 30),
    "speed": Part(
        "How fast is training, next to a plain loop and the machine's bf16 product?", "gpu_check.training_speed", 130
    ),
    "promise": Part(
        "How long does `mnist` take to the quality that its recipe promises?", "gpu_check.time_to_promise", 50
    ),
    "memory": Part("Does memory stay flat over 500 iterations?", "gpu_check.memory_growth", 25),
    "profile": Part("Which kernels take the time?", "gpu_check.kernel_times", 20),
}
