"""Worker processes that are measured in turn: each trains, samples or multiplies on request and returns its seconds.

    python benchmarks/speed_workers.py KIND SETTINGS

`speed.py` and `gpu.py` start them. Separate processes do not change each other's memory, caches or flags. Nothing is
built before the first request, so that many workers can start at once.
"""

import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from types import TracebackType
from typing import Any

import torch

from cardigan.config import Config
from cardigan.data.batches import Batches
from cardigan.experiment import build
from cardigan.hardware.memory import keep_freed_memory
from cardigan.hardware.precision import allow_tf32
from cardigan.models.sampling import sample_keys, sample_pixels
from cardigan.models.snapshot import Snapshot
from cardigan.overrides import override
from cardigan.recipes import find_recipe
from cardigan.training.budget import Budget, Clock
from cardigan.training.cuda_graph import WARMUP_STEPS, cuda_graph_step
from cardigan.training.devices import open_devices
from cardigan.training.loop import Trainer, make_step, run_step
from cardigan.training.schedule import step_kinds
from plain_pytorch import PlainLoop

SIDE = {"cpu": 4096, "cuda": 8192}
"""Side of the matrices whose product is timed."""
Settings = dict[str, Any]
"""recipe, batch_size and device; `overrides` by dotted name; `side` of the matrices."""
Parts = tuple[Callable[[int], object], Callable[[int], object]]
"""A function that trains for n steps, and one that generates n images."""


class WorkerEnded(Exception):
    """A worker did not answer: it failed or took too long."""


class Worker:
    """A worker process."""

    def __init__(self, kind: str, settings: Settings) -> None:
        self.kind, self._errors = kind, tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        words = [sys.executable, __file__, kind, json.dumps(settings)]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def send(self, **question: Any) -> None:
        """Send a request without waiting for the answer."""
        assert self.process.stdin
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def receive(self, seconds: float | None = None) -> dict[str, float]:
        """Return the answer to the last request; raises WorkerEnded if there is none in time."""
        assert self.process.stdout
        if seconds is not None and not select.select([self.process.stdout], [], [], seconds)[0]:
            self.process.kill()
            raise WorkerEnded(f"{self.kind}: no answer within {seconds:g} s")
        answer = self.process.stdout.readline()
        if not answer:
            raise self._ended()
        return json.loads(answer)

    def ask(self, **question: Any) -> dict[str, float]:
        self.send(**question)
        return self.receive()

    def end(self) -> None:
        """Close the process's standard input, which makes it exit."""
        assert self.process.stdin and self.process.stdout
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self._errors.close()

    def _ended(self) -> WorkerEnded:
        code = self.process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return WorkerEnded(f"{self.kind}: ended with exit code {code}: {lines[-1] if lines else 'no output'}")


def config_of(settings: Settings) -> Config:
    """Return the recipe's unconditional config; the plain loop has no classes."""
    config = replace(
        find_recipe(settings["recipe"]).config(),
        batch_size=settings["batch_size"],
        device=settings["device"],
        conditional=False,
    )
    return override(config, settings.get("overrides", {}))


def warm_up_steps(config: Config) -> int:
    """Return the number of steps before timing. On a GPU they record and replay every kind of step."""
    return 1 if config.device == "cpu" else (WARMUP_STEPS + 2) * config.objective.penalty_interval * config.n_critic


def serve(kind: str, settings: Settings) -> None:
    """Serve the requests on standard input, line by line, and answer with the seconds taken."""
    config, answers = config_of(settings), os.fdopen(os.dup(sys.stdout.fileno()), "w")
    sys.stdout = sys.stderr  # libraries may print
    on_gpu = config.device.startswith("cuda")
    parts: Parts | None = None
    with keep_freed_memory() if kind in {"cardigan", "eager"} else nullcontext():
        for line in sys.stdin:
            question = json.loads(line)
            if parts is None:
                if on_gpu and torch.device(config.device).index is not None:
                    torch.cuda.set_device(config.device)
                parts = KINDS[kind](config, settings)
            answers.write(json.dumps(answer(question, parts, on_gpu, settings)) + "\n")
            answers.flush()


def answer(question: dict[str, Any], parts: Parts, on_gpu: bool, settings: Settings) -> dict[str, float]:
    if "rates" in question:
        return {
            name: rate(dtype, settings)
            for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32))
            if name in question["rates"]
        }
    if "memory" in question:
        peak = (
            torch.cuda.max_memory_allocated() / 1e6
            if on_gpu
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        )
        return {"megabytes": peak}
    train, sample = parts
    if on_gpu:  # allocate the memory that was released below outside of the timed part
        train(1) if "steps" in question else sample(64)
        torch.cuda.synchronize()
    began = time.perf_counter()
    train(question["steps"]) if "steps" in question else sample(question["samples"])
    if on_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    if on_gpu:
        torch.cuda.empty_cache()  # the other workers may need it
    return {"seconds": seconds}


def plain_parts(config: Config, settings: Settings, tf32: bool = True) -> Parts:
    """The plain loop with PyTorch's default flags, except that TF32 is completely on or off."""
    loop = plain_loop(config)
    allow_tf32(tf32)
    return (lambda steps: [loop.step() for _ in range(steps)]), loop.sample


def plain_without_tf32_parts(config: Config, settings: Settings) -> Parts:
    return plain_parts(config, settings, tf32=False)


def compiled_parts(config: Config, settings: Settings) -> Parts:
    """The plain loop, compiled with reduce-overhead, which uses CUDA graphs."""
    loop = plain_loop(config)
    loop.compile()
    allow_tf32(True)
    return (lambda steps: [loop.step() for _ in range(steps)]), loop.sample


def plain_loop(config: Config) -> PlainLoop:
    images = Batches(build.build_source(config), config.data, config.seed).batch_at(0, 4096).images.contiguous()
    return PlainLoop(config, images.to(config.device))


def cardigan_parts(config: Config, settings: Settings, recorded: bool = True) -> Parts:
    devices, source = open_devices(config), build.build_source(config)
    spec = build.build_spec(config, source)
    state, step_config = build.build_state(config, spec, devices), build.build_step_config(config, devices)
    batches = Batches(source.to(devices.device), config.data, config.seed)
    eager_step = make_step(state, batches, step_config)
    step = cuda_graph_step(eager_step, devices.device, 1, step_kinds(config)) if recorded else eager_step
    trainer = Trainer(config, batches, step_config, step, Budget(config, devices.process_group, Clock()), None)
    states = [state]

    def train(steps: int) -> None:
        for _ in range(steps):
            states[0], _ = run_step(trainer, states[0])

    return train, lambda num: sample_pixels(Snapshot(state.ema_generator, config, spec, 0), sample_keys(num, 0))


def eager_parts(config: Config, settings: Settings) -> Parts:
    return cardigan_parts(config, settings, recorded=False)


def matrix_parts(config: Config, settings: Settings) -> Parts:
    return (lambda _: None), (lambda _: None)


KINDS: dict[str, Callable[[Config, Settings], Parts]] = {
    "plain": plain_parts,
    "plain without TF32": plain_without_tf32_parts,
    "compiled": compiled_parts,
    "cardigan": cardigan_parts,
    "eager": eager_parts,
    "matrix": matrix_parts,
}
"""`cardigan` uses CUDA graphs where possible, as every run does."""


def rate(dtype: torch.dtype, settings: Settings) -> float:
    """Return the GFLOP/s of a large square matrix product, best of eight."""
    device = settings["device"]
    on_gpu = device.startswith("cuda")
    side = settings.get("side", SIDE["cuda" if on_gpu else "cpu"])
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        began = time.perf_counter()
        torch.mm(left, right)
        if on_gpu:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best / 1e9


if __name__ == "__main__":
    serve(sys.argv[1], json.loads(sys.argv[2]))
