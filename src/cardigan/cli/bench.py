"""`cardigan bench`: train until a fixed target and report how long it took."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from cardigan.bench.rungs import RUNGS, check_memory, find_rung, rung_source
from cardigan.cli.output_path import check_output_path
from cardigan.cli.parsing import parse
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
    return _check(options) if options.check is not None else _measure(options)


def _measure(options: BenchOptions) -> int:
    from cardigan.bench.machine import describe_machine
    from cardigan.bench.record import make_record, write_record
    from cardigan.bench.timing import as_text, timed_run
    from cardigan.recipes import find_recipe

    rung = find_rung(options.rung)
    recipe = options.recipe or rung.recipe
    find_recipe(recipe)
    check_memory(rung)
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
        **{"limit_minutes": limit, "date": time.strftime("%Y-%m-%d"), "machine": machine},
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
    """Repeat the first seed of a result; 0 if it takes as many images, 1 if not."""
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
    runs = options.runs or Path("runs") / f"bench-check-{time.strftime('%Y%m%d-%H%M%S')}"
    again = timed_run(rung, recipe, first["seed"], runs, options.device, record["limit_minutes"])
    print(f"there: {as_text(first)}")
    print(f"here:  {as_text(again)}")
    machines = [record["machine"], describe_machine(options.device)]
    for name in machines[0]["calibration"].keys() & machines[1]["calibration"].keys():
        there, here = (each["calibration"][name] for each in machines)
        print(f"calibration {name}: {there:g} there, {here:g} here ({here / there:.2f}x)")
    is_same = again["images"] == first["images"] and again["curve"][-1][2] == first["curve"][-1][2]
    print(
        "The same number of images and the same score."
        if is_same
        else "Not the same images or score: another kind of machine rounds differently; compare with the range of the "
        f"seeds, {_range(record)}."
    )
    return 0 if again["reached"] == first["reached"] else 1


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


def _rung_lines() -> list[str]:
    lines = []
    for name, rung in RUNGS.items():
        lines += [
            name,
            f"  data     {rung.purpose}",
            f"  target   {rung.target:g}: {rung.score}",
            f"  recipe   {rung.recipe}, at most {rung.limit_minutes:g} minutes",
        ]
    return lines
