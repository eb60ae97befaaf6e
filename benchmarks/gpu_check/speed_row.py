"""One case of the speed part: a recipe at a batch size, trained by several workers in alternating windows.

Independent of the list of cases and their targets.
"""

from dataclasses import dataclass
from typing import Any

from gpu_check.part import Result
from speed import flop_per_image, spread
from speed_workers import Worker, WorkerEnded, config_of, warm_up_steps

OURS = ("recorded", "eager")


@dataclass
class Case:
    """A recipe at a batch size, with one worker per training variant. A failed worker is removed; the others go on."""

    name: str
    settings: dict[str, Any]
    """Settings of the workers (`speed_workers.Settings`)."""
    workers: dict[str, Worker]
    result: Result

    def wait_for_compiled(self, seconds: float) -> None:
        """Wait for the compiled loop. If it cannot be compiled, record why and go on with the others."""
        try:
            self.workers["compiled"].receive(seconds)
        except WorkerEnded as error:
            self.result.skip(f"{self.name}, compiled", str(error))
            self.workers.pop("compiled").end()

    def row(self, product: Worker, windows: int, seconds: float) -> dict[str, Any]:
        """Return one row: images/s of every variant, ratios, and fractions of the matrix product."""
        self.build()
        steps = self.steps_of_a_window(seconds)
        config = config_of(self.settings)
        speeds: dict[str, list[float]] = {kind: [] for kind in steps}
        products: list[float] = []
        for _ in range(windows):
            for kind in steps:
                for answer in self.ask(kind, steps=steps[kind]):
                    speeds[kind].append(steps[kind] * config.batch_size / answer["seconds"])
            products.append(product.ask(rates=["bf16"])["bf16"])
        speeds = {kind: speeds[kind] for kind in steps if kind in self.workers}
        megabytes = {kind: round(answer["megabytes"]) for kind in speeds for answer in self.ask(kind, memory=True)}
        self.result.check(not speeds.keys() ^ steps.keys(), f"{self.name}: not every variant was measured")
        return {
            "recipe": config.recipe,
            "batch_size": config.batch_size,
            "images_per_second": {kind: spread(values) for kind, values in speeds.items()},
            "bf16_product_gflop_per_second": spread(products),
            **compared(speeds, products, flop_per_image(config)),
            "peak_megabytes": megabytes,
        }

    def build(self) -> None:
        """Let all workers build their networks at the same time, by generating a few images."""
        for worker in self.workers.values():
            worker.send(samples=64)
        for kind in list(self.workers):
            self.answers(kind)

    def steps_of_a_window(self, seconds: float) -> dict[str, int]:
        """Warm up the workers, and return the steps per window of those that work."""
        warm_up, steps = warm_up_steps(config_of(self.settings)), dict[str, int]()
        for kind in list(self.workers):
            if self.ask(kind, steps=warm_up):
                for answer in self.ask(kind, steps=4):
                    steps[kind] = max(1, round(4 * seconds / answer["seconds"]))
        return steps

    def ask(self, kind: str, **question: Any) -> list[dict[str, float]]:
        """Return the answer of one worker as a list. If it has ended, record a failure and return an empty list."""
        if kind not in self.workers:
            return []
        try:
            self.workers[kind].send(**question)
        except WorkerEnded as error:
            return self._remove(kind, error)
        return self.answers(kind)

    def answers(self, kind: str) -> list[dict[str, float]]:
        """Return the answer to the last request of one worker."""
        try:
            return [self.workers[kind].receive()]
        except WorkerEnded as error:
            return self._remove(kind, error)

    def _remove(self, kind: str, error: WorkerEnded) -> list[dict[str, float]]:
        self.result.check(False, f"{self.name}: {error}")
        self.workers.pop(kind).end()
        return []

    def end(self) -> None:
        for worker in self.workers.values():
            worker.end()


def compared(speeds: dict[str, list[float]], products: list[float], flop: float) -> dict[str, Any]:
    """Return the ratios of our steps to every other variant, and the fractions of the matrix product."""
    ratios = {
        f"{ours} / {kind}": spread([one / other for one, other in zip(speeds[ours], values, strict=True)])
        for ours in OURS
        for kind, values in speeds.items()
        if ours in speeds and kind != ours
    }
    fractions = {
        kind: spread([speed * flop / 1e9 / product for speed, product in zip(speeds[kind], products, strict=True)])
        for kind in speeds
    }
    return {"ratios": ratios, "flop_per_image": flop, "fraction_of_bf16_product": fractions}
