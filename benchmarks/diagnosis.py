"""Evaluate `cardigan diagnose` on logs of real runs, with varied thresholds, and on healthy seeds of a recipe.

    python benchmarks/diagnosis.py published_runs.csv.gz       columns run,step,d_loss,g_loss,fid
    python benchmarks/diagnosis.py published_runs.csv.gz --noisy-copies
    python benchmarks/diagnosis.py --healthy-seeds 10 [--images 300000]
    python benchmarks/diagnosis.py --cost

A run has collapsed if it ended above 1.5 times its best score. "Spent" is the fraction of the steps between its best
and its end that came before the stop. "Too early" means stopped before it reached 1.05 times its eventual best.
"""

import argparse
import math
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from cardigan.health import score_trend
from cardigan.health.diagnosis import Reading, diagnose, read_csv

VARIED_THRESHOLDS = (
    "LOG_WORSENING",
    "LOG_LIKELIHOOD_THRESHOLD",
    "MIN_BAD_EVALUATIONS",
    "PRIOR_NOISE",
    "MIN_NOISE",
    "PRIOR_WEIGHT",
    "MIN_EVALUATIONS",
    "ALLOWANCE",
    "NOISE_MARGIN",
)
NOISE_LEVELS, NOISE_SEEDS = (0.05, 0.1, 0.15), 4
"""Standard deviations of the noise that is added to the log scores of published runs, and copies at each level."""


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


def report_noisy_copies(path: Path) -> None:
    """Print how often copies of the runs with noisier scores are stopped too early, by noise margin and by fold.

    The runs are split into seven folds. For each fold the margin is chosen on the other six: the fewest early stops
    for at most two percentage points more of the training that is spent after the best.
    """
    runs, _ = read_csv(path)
    names = sorted(runs)
    random.Random(0).shuffle(names)
    margins = (0.0, 0.5, 1.0)
    early: dict[float, dict[str, float]] = {}
    outcomes: dict[float, dict[str, Outcome]] = {}
    for margin in margins:
        with patch.object(score_trend, "NOISE_MARGIN", margin):
            outcomes[margin] = {name: run_outcome(name, runs[name], losses_only=False) for name in names}
            early[margin] = {name: _early_fraction(name, runs[name], outcomes[margin][name].reached) for name in names}
        mean = sum(early[margin].values()) / len(names)
        print(f"margin {margin}: {mean:.1%} of the noisy copies too early; {summary(list(outcomes[margin].values()))}")
    chosen, today = 0.0, 0.0
    for fold in range(7):
        held_out, others = names[fold::7], [name for name in names if name not in names[fold::7]]

        def cost(margin: float, others: list[str] = others) -> tuple[float, float]:
            stopped = [each for name in others if (each := outcomes[margin][name]).collapsed and each.stop is not None]
            return sum(early[margin][name] for name in others), sum(each.spent for each in stopped) / len(stopped)

        allowed = [margin for margin in margins if cost(margin)[1] <= cost(0.0)[1] + 0.02]
        best = min(allowed, key=lambda margin: cost(margin)[0])
        chosen += sum(early[best][name] for name in held_out)
        today += sum(early[0.0][name] for name in held_out)
        print(f"fold {fold}: margin {best}")
    print(
        f"held-out noisy copies too early: {today / len(names):.1%} without a margin, {chosen / len(names):.1%} with it"
    )


def _early_fraction(name: str, readings: list[Reading], reached: int) -> float:
    """Return the fraction of a run's noisy copies that are stopped before the run reaches 1.05 times its best."""
    scores = [(step, values["score"]) for step, values in readings if "score" in values]
    stops = []
    for level in NOISE_LEVELS:
        for seed in range(NOISE_SEEDS):
            rng, trend = random.Random(f"{name}{level}{seed}"), score_trend.ScoreTrend()
            noisy = [(step, score * math.exp(rng.gauss(0, level))) for step, score in scores]
            stops.append(next((step for step, score in noisy if trend.add(step, score)), None))
    return sum(stop is not None and stop < reached for stop in stops) / len(stops)


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
    from cardigan.training.updates import gradient_norm

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
    parser.add_argument("--noisy-copies", action="store_true")
    parser.add_argument("--healthy-seeds", type=int, default=0)
    parser.add_argument("--images", type=int, default=300_000)
    parser.add_argument("--cost", action="store_true")
    options = parser.parse_args()
    if options.table is not None:
        (report_noisy_copies if options.noisy_copies else report_table)(options.table)
    if options.healthy_seeds:
        report_seeds(options.healthy_seeds, options.images)
    if options.cost:
        report_cost()


if __name__ == "__main__":
    main()
