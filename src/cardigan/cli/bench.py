"""`cardigan bench`: train until a fixed target and report how long it took."""

import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from cardigan.bench.rungs import RUNGS, Rung, check_memory, check_recipe, check_scorer, find_rung, rung_source
from cardigan.cli.output_path import check_output_path
from cardigan.cli.parsing import flag_value, parse
from cardigan.config import BUILTIN_SOURCES
from cardigan.errors import CardiganError


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Train until the score of a rung is at its target, several times, and write how long it took as JSON."""

    rung: str = "digits"
    """The rung; --list names them."""
    recipe: str | None = None
    """Another recipe than the rung's."""
    seeds: int = 5
    """Number of trainings, with the seeds 0, 1, 2 and so on."""
    limit_minutes: float | None = None
    """End a training after this many minutes. Default: the rung's limit."""
    device: str = "auto"
    """cpu, cuda, cuda:1 or mps. auto takes the fastest present."""
    out: Path | None = None
    """The JSON file. Default: bench-RUNG-RECIPE-TIME.json."""
    runs: Path | None = None
    """Folder of the runs. Default: runs/bench-RUNG-RECIPE-TIME."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace --out if it exists."""
    check: Path | None = None
    """Train the first seed of this result again on this machine, and compare."""
    list: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """List the rungs."""


def main(argv: list[str]) -> int:
    options = parse(BenchOptions, argv, "cardigan bench")
    if options.list:
        print("\n".join(_rung_lines()))
        return 0
    if options.seeds < 1:
        raise CardiganError(f"--seeds is {options.seeds}: expected at least 1 training.")
    if options.limit_minutes is not None and not 0 < options.limit_minutes < 1e6:
        raise CardiganError(f"--limit-minutes is {options.limit_minutes}: expected a positive number of minutes.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the training ends too
    if options.check is None:
        return _measure(options)
    given = [flag for flag in ("--rung", "--recipe", "--seeds", "--limit-minutes", "--out") if flag_value(flag, argv)]
    if given:
        raise CardiganError(f"{given[0]} has no effect with --check, which repeats a result as it was: leave it out.")
    return _check(options)


def _measure(options: BenchOptions) -> int:
    from cardigan.bench.machine import describe_machine
    from cardigan.bench.record import make_record, write_record
    from cardigan.bench.timing import as_text, timed_run

    rung = find_rung(options.rung)
    recipe = options.recipe or rung.recipe
    check_recipe(rung, recipe)
    check_memory(rung)
    check_scorer(rung)
    rung_source(rung)
    name = f"bench-{options.rung}-{recipe}-{time.strftime('%Y%m%d-%H%M%S')}"
    out, runs = options.out or Path(f"{name}.json"), options.runs or Path("runs") / name
    check_output_path(out, {".json"}, options.overwrite)
    limit = rung.limit_minutes if options.limit_minutes is None else options.limit_minutes
    machine = describe_machine(options.device)
    print(f"{options.rung}: {rung.purpose}; target {rung.target:g} ({rung.score}); at most {limit:g} minutes each")
    print(f"machine: {machine['cpu']}, {machine['device']}, {machine['num_threads']} threads; {machine['calibration']}")
    facts: dict[str, Any] = {
        **{"rung": options.rung, "target": rung.target, "score": rung.score, "recipe": recipe},
        **{
            "num_seeds_asked": options.seeds,
            "limit_minutes": limit,
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine,
        },
    }
    seeds: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        seeds.append(timed_run(rung, recipe, seed, runs / str(seed), options.device, limit))
        print(as_text(seeds[-1]), flush=True)
        write_record(out, make_record(facts, seeds))  # after every seed, so that none is lost
    print(_summary(make_record(facts, seeds)))
    print(f"Written to {out}")
    return 0


def _check(options: BenchOptions) -> int:
    """Repeat the first seed of a result. Returns 0 if it takes as many images to the same score, 1 if not."""
    from cardigan.bench.machine import describe_machine
    from cardigan.bench.record import read_record
    from cardigan.bench.timing import as_text, timed_run

    assert options.check is not None
    record = read_record(options.check)
    rung, recipe, first = find_rung(record["rung"]), record["recipe"], record["seeds"][0]
    if record["target"] != rung.target:
        raise CardiganError(
            f"{options.check} has the target {record['target']}, and in this version {record['rung']} has "
            f"{rung.target:g}: use cardigan {record['machine']['cardigan']}."
        )
    check_memory(rung)
    check_scorer(rung)
    machine = describe_machine(options.device)
    runs = options.runs or Path("runs") / f"bench-check-{time.strftime('%Y%m%d-%H%M%S')}"
    again = timed_run(rung, recipe, first["seed"], runs, options.device, record["limit_minutes"])
    print(f"there: {as_text(first)}")
    print(f"here:  {as_text(again)}")
    there = record["machine"]
    for name in there["calibration"].keys() & machine["calibration"].keys():
        before, now = there["calibration"][name], machine["calibration"][name]
        print(f"calibration {name}: {before:g} there, {now:g} here ({now / before:.2f}x)")
    if not (first["reached"] and again["reached"]):
        print("A training that ends at its time limit cannot be compared by its number of images.")
        return 0 if first["reached"] == again["reached"] else 1
    if (again["images"], again["score"]) == (first["images"], first["score"]):
        print("The same number of images and the same score.")
        return 0
    differing = [name for name in ("cpu", "device", "num_threads", "torch", "cardigan") if there[name] != machine[name]]
    if again["settings_sha256"] != first["settings_sha256"]:
        differing.append("the settings")
    print(
        f"Not the same images or score; different: {', '.join(differing) or 'nothing that the file tells'}. The seeds "
        f"of the result took {_range(record)}."
    )
    return 1


def _range(record: dict[str, Any]) -> str:
    images = record["summary"].get("images")
    return "none of which reached the target" if images is None else f"{images['low']:,} to {images['high']:,} images"


def _summary(record: dict[str, Any]) -> str:
    summary = record["summary"]
    reached = f"{summary['num_reached']} of {summary['num_seeds']} seeds reached the target"
    if not summary["num_reached"]:
        return reached
    seconds, images = summary["seconds"], summary["images"]
    return (
        f"{reached}: median {seconds['median']:,.0f} s ({seconds['low']:,.0f}-{seconds['high']:,.0f}), "
        f"{images['median']:,.0f} images"
    )


def _needs(rung: Rung) -> str:
    memory = f"{rung.memory_gigabytes:g} GB of memory"
    if rung.source in BUILTIN_SOURCES:
        return memory
    return f"{memory}, the extra features, and `python benchmarks/image_sets.py {rung.source}` in a clone"


def _rung_lines() -> list[str]:
    lines = []
    for name, rung in RUNGS.items():
        lines += [
            name,
            f"  data     {rung.purpose}",
            f"  target   {rung.target:g}: {rung.score}",
            f"  recipe   {rung.recipe}, at most {rung.limit_minutes:g} minutes on two CPU cores or a GPU",
            f"  needs    {_needs(rung)}",
        ]
    return lines
