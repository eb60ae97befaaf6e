"""How well `cardigan diagnose` does: on logs of real runs, with every number of its rule changed, and on healthy seeds of a recipe.

    python benchmarks/diagnosis.py published_runs.csv.gz       columns run,step,d_loss,g_loss,fid
    python benchmarks/diagnosis.py --healthy-seeds 10 [--images 300000]
    python benchmarks/diagnosis.py --cost

A run has collapsed if it ended above 1.5 times its own best score. Spent: the share of the steps from its best to its end that came before the stop.
Too early: stopped before it reached 1.05 times its eventual best.
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
    "WORSE",
    "EVIDENCE",
    "WITNESSES",
    "USUAL_NOISE",
    "SMALLEST_NOISE",
    "WEIGHT_OF_USUAL",
    "FIRST",
    "ALLOWANCE",
)


@dataclass(frozen=True)
class Outcome:
    """One run, and where it was stopped."""

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


def run_outcome(name: str, readings: list[Reading], losses_alone: bool) -> Outcome:
    scores = [(step, values["score"]) for step, values in readings if "score" in values]
    lowest = min(score for _, score in scores)
    shown = (
        [(step, {key: value for key, value in values.items() if key != "score"}) for step, values in readings]
        if losses_alone
        else readings
    )
    found = diagnose(shown, has_scores=not losses_alone)
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
        f"stopped {len(stopped)} of {len(collapsed)} collapsed; spent {summed:6.1%} summed, {mean:6.1%} mean, {of_stopped:6.1%} mean of the stopped; "
        f"too early {early} of {len(outcomes)}"
    )


def report_table(path: Path) -> None:
    runs, _ = read_csv(path)

    def outcomes(losses_alone: bool = False) -> list[Outcome]:
        return [run_outcome(name, readings, losses_alone) for name, readings in runs.items()]

    for each in outcomes():
        if each.collapsed or each.stop is not None:
            mark = ("collapsed, " if each.collapsed else "") + (
                "stopped too early" if each.early else f"{each.spent:.0%} spent"
            )
            print(
                f"{each.name:<40} {each.diagnosis:<17} best {each.best:>7,} stop {each.stop or '-':>7} end {each.end:>7,}  {mark}"
            )
    print(f"\nwith scores          {summary(outcomes())}")
    print(f"from losses alone    {summary(outcomes(losses_alone=True))}\n")
    for name in VARIED_THRESHOLDS:
        usual = getattr(score_trend, name)
        for times in (0.7, 0.8, 1.2, 1.3):
            value = round(usual * times) if isinstance(usual, int) else usual * times
            with patch.object(score_trend, name, value):
                print(f"{name:<16} x {times} = {value:<8.3g} {summary(outcomes())}")


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
            told = f"best score {min(scores):.2f}, last {scores[-1]:.2f}, {scores[-1] / min(scores):.2f} times it"
            print(f"seed {seed}: {run.images_seen:,} images, faults: {', '.join(faults) or 'none'}; {told}", flush=True)


def report_cost() -> None:
    """Time a look and a step of the recipe in turns, and what is looked at in every step."""
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
    state, rules = (
        build.build_state(config, build.build_spec(config, source), devices),
        build.build_step_config(config, devices),
    )
    batches, probe = (
        Batches(source, config.data, 0),
        TrainingProbe(config, Batches(source, config.data, 0), source, rules),
    )
    trial = Trainer(
        config, batches, rules, make_step(state, batches, rules), Budget(config, devices.process_group, Clock()), None
    )
    gradients = [
        torch.randn_like(parameter)
        for role in (state.networks.generator, state.networks.discriminator)
        for parameter in role.parameters()
    ]
    probe(state)
    steps, looks, lengths = [], [], []
    for _ in range(20):
        for seconds, deed in (
            (steps, lambda state=state: run_step(trial, state)),
            (looks, lambda state=state: probe(state)),
            (lengths, lambda: bool(gradient_norm(gradients).isfinite())),
        ):
            began = time.perf_counter()
            deed()
            seconds.append(time.perf_counter() - began)
    step, look, length = (sorted(each)[len(each) // 2] * 1000 for each in (steps, looks, lengths))
    print(
        f"step {step:.1f} ms; a look {look:.1f} ms, every 2 s {look / 2000:.2%}; gradient lengths {length:.2f} ms, {length / step:.2%} of a step"
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
    if options.quantization:
        report_cost()


if __name__ == "__main__":
    main()
