"""Evaluate `cardigan diagnose` on logs of real runs, with varied thresholds, and on healthy seeds of a recipe.

    python benchmarks/diagnosis.py published_runs.csv.gz       columns run,step,d_loss,g_loss,fid
    python benchmarks/diagnosis.py --healthy-seeds 10 [--images 300000]
    python benchmarks/diagnosis.py --cost

A run has collapsed if it ended above 1.5 times its best score. "Spent" is the fraction of the steps between its best
and its end that came before the stop. "Too early" means stopped before it reached 1.05 times its eventual best.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from cardigan.cli.diagnose import Reading, diagnose, read_csv
from cardigan.health import score_trend

VARIED_THRESHOLDS = (
    "LOG_WORSENING",
    "LOG_LIKELIHOOD_THRESHOLD",
    "MIN_BAD_EVALUATIONS",
    "PRIOR_NOISE",
    "MIN_NOISE",
    "PRIOR_WEIGHT",
    "MIN_EVALUATIONS",
    "ALLOWANCE",
)


@dataclass(frozen=True)
class Outcome:
    """A run and where it was stopped."""

    name: str
    diagnosis: str
    stop: int | None
    best: int
    reached: int
    end: int
    collapsed: bool

    @property
    def spent(self) -> float:
        stop = self.end if self.stop is None else self.stop
        return max(0, stop - self.best) / (self.end - self.best)

    @property
    def early(self) -> bool:
        return self.stop is not None and self.stop < self.reached


def run_outcome(name: str, readings: list[Reading], losses_only: bool) -> Outcome:
    scores = [(step, values["score"]) for step, values in readings if "score" in values]
    lowest = min(score for _, score in scores)
    used = (
        [(step, {key: value for key, value in values.items() if key != "score"}) for step, values in readings]
        if losses_only
        else readings
    )
    found = diagnose(used, has_scores=not losses_only)
    best = next(step for step, score in scores if score == lowest)
    reached = next(step for step, score in scores if score <= 1.05 * lowest)
    return Outcome(name, found.diagnosis, found.stop_step, best, reached, readings[-1][0], scores[-1][1] > 1.5 * lowest)


def summary(outcomes: list[Outcome]) -> str:
    collapsed = [each for each in outcomes if each.collapsed]
    stopped = [each for each in collapsed if each.stop is not None]
    after = [each.end - each.best for each in collapsed]
    summed = sum(each.spent * steps for each, steps in zip(collapsed, after, strict=True)) / sum(after)
    mean = sum(each.spent for each in collapsed) / len(collapsed)
    of_stopped = sum(each.spent for each in stopped) / max(1, len(stopped))
    early = sum(each.early for each in outcomes)
    return (
        f"stopped {len(stopped)} of {len(collapsed)} collapsed; spent {summed:6.1%} summed, {mean:6.1%} mean, "
        f"{of_stopped:6.1%} mean of the stopped; too early {early} of {len(outcomes)}"
    )


def report_table(path: Path) -> None:
    runs, _ = read_csv(path)

    def outcomes(losses_only: bool = False) -> list[Outcome]:
        return [run_outcome(name, readings, losses_only) for name, readings in runs.items()]

    for each in outcomes():
        if each.collapsed or each.stop is not None:
            mark = ("collapsed, " if each.collapsed else "") + (
                "stopped too early" if each.early else f"{each.spent:.0%} spent"
            )
            print(
                f"{each.name:<40} {each.diagnosis:<17} best {each.best:>7,} "
                f"stop {each.stop or '-':>7} end {each.end:>7,}  {mark}"
            )
    print(f"\nwith scores          {summary(outcomes())}")
    print(f"losses only          {summary(outcomes(losses_only=True))}\n")
    for name in VARIED_THRESHOLDS:
        default = getattr(score_trend, name)
        for factor in (0.7, 0.8, 1.2, 1.3):
            value = round(default * factor) if isinstance(default, int) else default * factor
            with patch.object(score_trend, name, value):
                print(f"{name:<24} x {factor} = {value:<8.3g} {summary(outcomes())}")


def report_seeds(count: int, images: int) -> None:
    import cardigan
    from cardigan.run.journal import Event

    for seed in range(count):
        with tempfile.TemporaryDirectory() as folder:
            faults: list[str] = []
            scores: list[float] = []

            def listen(event: Event, faults: list[str] = faults, scores: list[float] = scores) -> None:
                if event.kind == "fault":
                    faults.append(event.values["name"])
                elif event.kind == "checkpoint" and "score" in event.values:
                    scores.append(event.values["score"])

            run = cardigan.train(
                "mnist",
                seed=seed,
                images=images,
                out=Path(folder) / "run",
                on_event=listen,
            )
            ratio = scores[-1] / min(scores)
            text = f"best score {min(scores):.2f}, last {scores[-1]:.2f} ({ratio:.2f} times the best)"
            print(f"seed {seed}: {run.images_seen:,} images, faults: {', '.join(faults) or 'none'}; {text}", flush=True)


def report_cost() -> None:
    """Time a probe, a training step and the gradient norms of the recipe in turn."""
    import torch

    from cardigan import config_for
    from cardigan.data.batches import Batches
    from cardigan.experiment import build
    from cardigan.training.budget import Budget, Clock
    from cardigan.training.devices import open_devices
    from cardigan.training.loop import Trainer, make_step, run_step
    from cardigan.training.probe import TrainingProbe
    from cardigan.training.steps import gradient_norm

    config = config_for("mnist")
    devices, source = open_devices(config), build.build_source(config)
    state, step_config = (
        build.build_state(config, build.build_spec(config, source), devices),
        build.build_step_config(config, devices),
    )
    batches, probe = (
        Batches(source, config.data, 0),
        TrainingProbe(config, Batches(source, config.data, 0), source, step_config),
    )
    trainer = Trainer(
        config,
        batches,
        step_config,
        make_step(state, batches, step_config),
        Budget(config, devices.process_group, Clock()),
        None,
    )
    gradients = [
        torch.randn_like(parameter)
        for network in (state.networks.generator, state.networks.discriminator)
        for parameter in network.parameters()
    ]
    probe(state)
    steps, probes, norms = [], [], []
    for _ in range(20):
        for seconds, function in (
            (steps, lambda state=state: run_step(trainer, state)),
            (probes, lambda state=state: probe(state)),
            (norms, lambda: bool(gradient_norm(gradients).isfinite())),
        ):
            began = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - began)
    step, probe_ms, norm = (sorted(each)[len(each) // 2] * 1000 for each in (steps, probes, norms))
    print(
        f"step {step:.1f} ms; probe {probe_ms:.1f} ms, every 2 s {probe_ms / 2000:.2%}; "
        f"gradient norms {norm:.2f} ms, {norm / step:.2%} of a step"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, nargs="?")
    parser.add_argument("--healthy-seeds", type=int, default=0)
    parser.add_argument("--images", type=int, default=300_000)
    parser.add_argument("--cost", action="store_true")
    options = parser.parse_args()
    if options.table is not None:
        report_table(options.table)
    if options.healthy_seeds:
        report_seeds(options.healthy_seeds, options.images)
    if options.cost:
        report_cost()


if __name__ == "__main__":
    main()
