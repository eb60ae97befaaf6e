"""`cardigan train SOURCE`: settings from the recipe, a file and options, then training under a live view."""

import json
import os
import shlex
import tomllib
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from cardigan.cli.parsing import given, parse
from cardigan.config import Config, flatten, override
from cardigan.errors import CardiganError
from cardigan.recipes import config_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from cardigan.api import Run
    from cardigan.run.journal import Event

MAX_DEVICES = 64
EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143}


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train a GAN on a source of pictures. With a source alone everything else is chosen by its recipe."""

    source: Annotated[str, tyro.conf.Positional]
    """What to train on: mnist, stacked-mnist, or a folder, zip, tar, .npz, .npy, parquet, hf:NAME, tar shards (docs/guides/data.md)."""
    size: str | None = None
    """Side of the training pictures in pixels, or height and width as in 96x64; nothing is chosen for the pictures."""
    fit: Literal["crop", "pad", "stretch"] | None = None
    """How pictures of another shape fill it: cut, fill up with black, or stretch."""
    mirror: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Train on every picture's mirror image too."""
    out: Path | None = None
    """The run directory; by default runs/<date>-<time>-<name>, after the source or the recipe."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on with the run in --out (started if it is not there yet), or with the newest run of that name."""
    quiet: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print nothing but errors."""
    devices: int = 1
    """Processes on this machine: one per GPU, or several that divide the CPU's cores."""
    studio: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show the run in the browser while it trains (cardigan studio)."""
    config: Path | None = None
    """Settings from a JSON or TOML file, on top of the recipe's; the config.json of a run will do."""
    settings: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def main(words: list[str], started: float) -> int:
    """Train as the words say; return the exit code."""
    base = _base_settings(words)
    options = parse(TrainOptions, words, "cardigan train", TrainOptions(source="", settings=base))
    if options.source and options.source != base.data.source:  # some option stood before the source
        base = _base_settings([options.source, *words])
        options = parse(TrainOptions, words, "cardigan train", TrainOptions(source="", settings=base))
    if not options.source:
        raise CardiganError("No source was given: name one, as in `cardigan train mnist`.")
    if given("--data.source", words):
        raise CardiganError("--data.source is the SOURCE that stands before the options: leave it out.")
    if options.devices != 1:
        return _in_several_processes(words, options.devices, options.settings.batch)
    quiet = options.quiet or os.environ.get("RANK", "0") != "0"

    from cardigan import api
    from cardigan.cli.live import live_view

    recipe = given("--recipe", words)
    asked = _asked(options, words, flatten(config_for(options.source, recipe)))
    with live_view(options.settings, quiet) as report, _watched(options.studio, report) as report:
        run = api.train(options.source, recipe=recipe, overrides=asked, out=options.out, resume=options.resume, report=report, started=started)
    if not quiet:
        print(_closing_words(run, options.studio))
    return EXIT_CODES.get(run.stopped_by, 0)


def _watched(wanted: bool, report: "Callable[[Event], None]") -> "AbstractContextManager[Callable[[Event], None]]":
    """Return what to report to, with a studio beside it if that is wanted; of several processes the first one has it."""
    if not wanted or os.environ.get("RANK", "0") != "0":
        return nullcontext(report)
    from cardigan.cli.beside import studio_beside

    return studio_beside(report)


def _asked(options: TrainOptions, words: list[str], usual: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that the words and the config file give, by dotted name; what they leave open may still be chosen."""
    settings = flatten(options.settings)
    file = given("--config", words)
    told = set(_read_settings(Path(file))) if file else set()
    told |= {name for name in settings for spelling in (name, name.replace("_", "-")) if given(f"--{spelling}", words) is not None}
    asked = {name: value for name, value in settings.items() if name in told or value != usual[name]}
    for name in ("recipe", "data.source"):
        asked.pop(name, None)
    if "minutes" in told and "images" not in told:
        asked["images"] = None  # the user's budget instead of the recipe's
    twice = {"size": {"data.height", "data.width"}, "fit": {"data.fit"}}
    for option, names in twice.items():
        if getattr(options, option) is not None and names & told:
            raise CardiganError(f"--{option} and --{min(names & told)} were both given: leave one out.")
    if options.size is not None:
        asked["data.height"], asked["data.width"] = _sides(options.size)
    if options.fit is not None:
        asked["data.fit"] = options.fit
    if options.mirror:
        asked["data.mirror"] = True
    return asked


def _sides(size: str) -> tuple[int, int]:
    """Return height and width from `64` or `96x64`."""
    sides = size.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise CardiganError(f"--size is {size!r}: expected one number, as in 64, or height and width, as in 96x64.")
    return int(sides[0]), int(sides[-1])


def _in_several_processes(words: list[str], count: int, batch: int) -> int:
    """Train with these words, but for --devices, in as many processes; return the exit code."""
    if not 1 <= count <= MAX_DEVICES:
        raise CardiganError(f"--devices is {count}: expected 1..{MAX_DEVICES}; for several machines see docs/guides/scale.md.")
    if batch % count:
        raise CardiganError(f"batch is {batch} over {count} processes: expected a multiple of {count}.")
    from cardigan.cli.launch import launch

    place = words.index("--devices") if "--devices" in words else None
    rest = words[:place] + words[place + 2 :] if place is not None else [word for word in words if not word.startswith("--devices=")]
    return launch(rest, count)


def _base_settings(words: list[str]) -> Config:
    """Return what the options start from: the recipe that is named, or the source's own, with the config file on top."""
    recipe = given("--recipe", words)
    sources = [word for word in words[:1] if not word.startswith("-")]
    config = config_for(sources[0] if sources else "mnist", recipe)
    file = given("--config", words)
    return override(config, _read_settings(Path(file))) if file else config


def _read_settings(path: Path) -> dict[str, Any]:
    """Return the settings in a JSON or TOML file by dotted name; a run's config.json holds them under `config`."""
    try:
        text = path.read_text()
        values = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise CardiganError(f"Cannot read the config file {path}: {(error.strerror or str(error)).lower()}.") from error
    except (ValueError, RecursionError) as error:
        raise CardiganError(f"{path} is no JSON or TOML: {error}.") from error
    values = values.get("config", values) if isinstance(values, dict) else values
    if not isinstance(values, dict):
        raise CardiganError(f"{path} holds no settings: expected names and values, as in a run's config.json.")
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update({f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value})
    return flat


def _closing_words(run: "Run", studio: bool) -> str:
    reasons = {
        "images": "Finished",
        "minutes": "Finished: the time is used up",
        "patience": "Stopped: the score has not improved for longer than --patience",
        "health": "Stopped: the run has gone bad (cardigan diagnose tells why)",
        "SIGINT": "Stopped by Ctrl-C",
        "SIGTERM": "Stopped by SIGTERM",
    }
    best = " (of the best checkpoint)" if run.stopped_by in {"patience", "health"} else ""
    quoted = shlex.quote(str(run.path))
    lines = [
        f"{reasons[run.stopped_by]}, after {run.images_seen:,} images. Everything is saved in {run.path}",
        f"  pictures    {run.path}/samples/",
        f"  generator   {run.path}/generator.safetensors{best}",
        f"  report      {run.path}/report.html",
        f"  draw more   cardigan sample {quoted} -n 64 --out more.png",
        f"  go on       the same command with --out {quoted} --resume {_larger_budget(run)}".rstrip(),
    ]
    if studio:
        from cardigan.cli.beside import again

        lines.append(again(run.path))
    return "\n".join(lines)


def _larger_budget(run: "Run") -> str:
    """Return the option that makes the run go on; after a signal the old budget is still unspent."""
    if run.stopped_by == "minutes":
        return f"--minutes {2 * (run.config.minutes or 0):g}"
    return f"--images {2 * run.images_seen}" if run.stopped_by == "images" else ""
