"""`cardigan train SOURCE`: train with settings from the recipe, a file and options, and show the progress."""

import json
import os
import shlex
import tomllib
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from cardigan.cli.devices import MAX_DEVICES
from cardigan.cli.known_names import known_network_options, known_penalties, known_trackers, one_of
from cardigan.cli.parsing import flag_value, parse
from cardigan.cli.train_help import short_help
from cardigan.config import Config
from cardigan.errors import CardiganError, escape_control_characters
from cardigan.files.special_files import reject_special_file
from cardigan.overrides import flatten, override
from cardigan.recipes import config_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from cardigan.experiment.finished_run import Run
    from cardigan.run.journal import Event

EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143}


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train a GAN on a source of images. The recipe of the source sets all other options."""

    source: Annotated[str, tyro.conf.Positional]
    """Training images: mnist, stacked-mnist, a folder, zip, tar, .npz, .npy, parquet, hf:NAME, shards."""
    size: str | None = None
    """Side of the training images in pixels, or height and width as in 96x64. Default: chosen for the images."""
    resize: Literal["crop", "pad", "stretch"] | None = None
    """How images of another shape are resized: crop, pad with black, or stretch."""
    horizontal_flip: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Also train on the horizontally flipped images."""
    out: Path | None = None
    """The run directory. Default: runs/<date>-<time>-<name>, named after the source or the recipe."""
    from_: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Start from a trained model: a run, checkpoint, generator.safetensors, model folder or hf:USER/NAME."""
    accept_license: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Start from a model although its license forbids derivatives: you have permission."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Continue the run in --out (start it if it does not exist), or the newest run of that name."""
    quiet: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print nothing but errors."""
    devices: int = 1
    """Number of processes on this machine: one per GPU, or several that share the CPU's cores."""
    studio: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show the run in the browser during training (cardigan studio)."""
    track: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(help=f"Send the run to a tracker: {one_of(known_trackers())}. Repeat it for several."),
    ] = ()
    track_project: str = "cardigan"
    """The project (wandb, trackio) or experiment (mlflow) of --track."""
    track_files: bool = True
    """--track also sends the best generator and the report when the run has stopped."""
    track_samples: bool = True
    """--track also sends the sample sheets, which show real images too."""
    config: Path | None = None
    """JSON or TOML file with settings that override the recipe, such as the config.json of a run."""
    settings: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def main(argv: list[str], started_at: float) -> int:
    """Train a GAN; return the exit code."""
    if {"-h", "--help"} & {*argv}:
        print(short_help())
        return 0
    argv = ["--help" if argument == "--help-all" else argument for argument in argv]
    base = _base_settings(argv)
    options = parse(TrainOptions, argv, "cardigan train", TrainOptions(source="", settings=with_all_tables(base)))
    if options.source and options.source != base.data.source:  # an option came before the source
        base = _base_settings([options.source, *argv])
        options = parse(TrainOptions, argv, "cardigan train", TrainOptions(source="", settings=with_all_tables(base)))
    if not options.source:
        raise CardiganError("No source was given: name one, as in `cardigan train mnist`.")
    if flag_value("--data.source", argv):
        raise CardiganError("--data.source is the SOURCE argument: leave the option out.")
    if options.track:
        from cardigan.trackers.table import find_tracker

        for name in options.track:
            find_tracker(name)  # before several processes would each refuse it
    if options.devices != 1:
        batch_size = None if options.from_ else options.settings.batch_size  # that of the model is not known here
        return _train_distributed(argv, options.devices, batch_size)
    quiet = options.quiet or os.environ.get("RANK", "0") != "0"

    from cardigan import api
    from cardigan.cli.progress import progress_view

    recipe = flag_value("--recipe", argv)
    overrides = _explicit_settings(options, argv, flatten(config_for(options.source, recipe)))
    with progress_view(options.settings, quiet) as on_event, _with_studio(options.studio, on_event) as on_event:
        run = api.train(
            options.source,
            recipe=recipe,
            overrides=overrides,
            out=options.out,
            resume=options.resume,
            on_event=on_event,
            started_at=started_at,
            start_from=options.from_,
            accept_license=options.accept_license,
            verbose=False,  # it has a view of its own
            track=options.track,
            track_project=options.track_project,
            track_files=options.track_files,
            track_samples=options.track_samples,
        )
    if not quiet:
        print(escape_control_characters(_closing_text(run, options.studio, options.track)))
    return EXIT_CODES.get(run.stopped_by, 0)


TABLES = ("objective.penalties", "generator.options", "discriminator.options")
"""Settings that are tables of names and values."""


def help_arguments() -> dict[str, Any]:
    """Return the arguments of tyro with which the help names every option."""
    return {"default": TrainOptions(source="", settings=with_all_tables(Config()))}


def with_all_tables(settings: Config) -> Config:
    """Return the settings with a value for every known penalty (0 if off) and network option, so that each is a flag.

    The values that nobody gave are taken out again by `_explicit_settings`.
    """
    settings = replace(
        settings,
        objective=replace(settings.objective),
        generator=replace(settings.generator),
        discriminator=replace(settings.discriminator),
    )
    for table in TABLES:
        section, name = table.split(".")
        values = {**_table_defaults(table), **getattr(getattr(settings, section), name)}
        object.__setattr__(getattr(settings, section), name, values)
    return settings


def _table_defaults(table: str) -> dict[str, bool | int | float | str]:
    """Return every known entry of a table with its default."""
    section, _ = table.split(".")
    return dict.fromkeys(known_penalties(), 0.0) if section == "objective" else known_network_options(section)


def _with_studio(
    with_studio: bool, on_event: "Callable[[Event], None]"
) -> "AbstractContextManager[Callable[[Event], None]]":
    """Return the event callback, with a studio process if requested. Only the first process starts one."""
    if not with_studio or os.environ.get("RANK", "0") != "0":
        return nullcontext(on_event)
    from cardigan.cli.studio_process import studio_process

    return studio_process(on_event)


def _explicit_settings(options: TrainOptions, argv: list[str], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the settings given by options and the config file, by dotted name. Others may be chosen automatically."""
    settings, defaults = flatten(options.settings), dict(defaults)
    for table in TABLES:
        values, before = settings.pop(table), defaults.pop(table)
        known = _table_defaults(table)
        for name in {**known, **before, **values}:
            settings[f"{table}.{name}"] = values.get(name, known.get(name, 0.0))
            defaults[f"{table}.{name}"] = before.get(name, known.get(name, 0.0))
    file = flag_value("--config", argv)
    in_file = _read_settings(Path(file)) if file else {}
    named = {*in_file, *(f"{table}.{name}" for table in TABLES for name in in_file.get(table, ()))}
    named |= {
        name
        for name in settings
        for flag_name in (name, name.replace("_", "-"))
        if flag_value(f"--{flag_name}", argv) is not None
    }
    if "objective.penalties" in named:  # the whole table: those that it leaves out are off
        named |= {name for name in settings if name.startswith("objective.penalties.")}
    explicit = {name: value for name, value in settings.items() if name in named or value != defaults[name]}
    for name in ("recipe", "data.source"):
        explicit.pop(name, None)
    if "minutes" in named and "images" not in named:
        explicit["images"] = None  # the user's budget instead of the recipe's
    aliases = {"size": {"data.height", "data.width"}, "resize": {"data.resize"}}
    for option, names in aliases.items():
        if getattr(options, option) is not None and names & named:
            raise CardiganError(f"--{option} and --{min(names & named)} were both given: leave one out.")
    if options.size is not None:
        explicit["data.height"], explicit["data.width"] = _parse_size(options.size)
    if options.resize is not None:
        explicit["data.resize"] = options.resize
    if options.horizontal_flip:
        explicit["data.horizontal_flip"] = True
    return explicit


def _parse_size(size: str) -> tuple[int, int]:
    """Return height and width from `64` or `96x64`."""
    sides = size.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise CardiganError(f"--size is {size!r}: expected one number, as in 64, or height and width, as in 96x64.")
    return int(sides[0]), int(sides[-1])


def _train_distributed(argv: list[str], num_processes: int, batch_size: int | None) -> int:
    """Train in `num_processes` processes with these arguments except --devices; return the exit code."""
    if not 1 <= num_processes <= MAX_DEVICES:
        raise CardiganError(
            f"--devices is {num_processes}: expected 1..{MAX_DEVICES}; for several machines see docs/guides/scale.md."
        )
    if batch_size is not None and batch_size % num_processes:
        raise CardiganError(
            f"batch_size is {batch_size} over {num_processes} processes: expected a multiple of {num_processes}."
        )
    from cardigan.cli.launch import launch

    devices_index = argv.index("--devices") if "--devices" in argv else None
    child_argv = (
        argv[:devices_index] + argv[devices_index + 2 :]
        if devices_index is not None
        else [argument for argument in argv if not argument.startswith("--devices=")]
    )
    return launch(child_argv, num_processes)


def _base_settings(argv: list[str]) -> Config:
    """Return the settings before options: the given recipe or the source's default one, with the config file on top."""
    recipe = flag_value("--recipe", argv)
    sources = [argument for argument in argv[:1] if not argument.startswith("-")]
    config = config_for(sources[0] if sources else "mnist", recipe)
    file = flag_value("--config", argv)
    return override(config, _read_settings(Path(file))) if file else config


def _read_settings(path: Path) -> dict[str, Any]:
    """Return the settings in a JSON or TOML file by dotted name. A run's config.json holds them under `config`."""
    try:
        reject_special_file(path)
        text = path.read_text()
        values = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise CardiganError(f"Cannot read the config file {path}: {(error.strerror or str(error)).lower()}.") from error
    except (ValueError, RecursionError) as error:
        raise CardiganError(f"{path} is not valid JSON or TOML: {error}.") from error
    values = values.get("config", values) if isinstance(values, dict) else values
    if not isinstance(values, dict):
        raise CardiganError(f"{path} has no settings: expected names and values, as in a run's config.json.")
    settings: dict[str, Any] = {}
    for name, value in values.items():
        settings.update(
            {f"{name}.{key}": field_value for key, field_value in value.items()}
            if isinstance(value, dict)
            else {name: value}
        )
    return settings


def _closing_text(run: "Run", studio: bool, trackers: tuple[str, ...] = ()) -> str:
    from cardigan.run.directory import RunDirectory, read_provenance
    from cardigan.run.stopping import REASON_SENTENCES, resume_command
    from cardigan.trackers.position import place_of

    best_text = " (the best checkpoint)" if run.stopped_by in {"patience", "failure"} else ""
    quoted = shlex.quote(str(run.path))
    command = read_provenance(RunDirectory(run.path)).get("command", [])
    resume = resume_command(run.path, command, run.config, run.images_seen, run.stopped_by)
    lines = [
        f"{REASON_SENTENCES[run.stopped_by]}, after {run.images_seen:,} images. Everything is saved in {run.path}",
        f"  samples     {run.path}/samples/",
        f"  generator   {run.path}/generator.safetensors{best_text}",
        f"  report      {run.path}/report.html",
        f"  sample      cardigan sample {quoted} -n 64 --out more.png",
        f"  resume      {resume}  # counted from the run's beginning",
    ]
    if studio:
        from cardigan.cli.studio_process import studio_command

        lines.append(studio_command(run.path))
    lines += [f"  {name:<11} {place}" for name in trackers if (place := place_of(run.path, name))]
    return "\n".join(lines)
