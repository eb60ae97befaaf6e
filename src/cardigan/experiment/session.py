"""A training run from its arguments: the run directory, automatic settings, the model to start from, resuming.

`training_run.py` then builds everything and trains.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from cardigan.config import Config
from cardigan.data.builtin import BUILTIN_DATASETS
from cardigan.data.datasets import dataset_stats, reader_from_config
from cardigan.data.formats.arrays import array_reader
from cardigan.data.formats.torch_dataset import torch_dataset_reader
from cardigan.data.reader import Reader
from cardigan.data.source_names import absolute_labels, absolute_source, default_run_name
from cardigan.data.webdataset.shards import is_shards
from cardigan.errors import CardiganError
from cardigan.experiment import build
from cardigan.experiment.auto import auto_augmentation, auto_config
from cardigan.experiment.finished_run import Run
from cardigan.experiment.nearest_starter import AUTO, find_nearest_starter, nearest_starter, proposal
from cardigan.experiment.start_from import (
    Parent,
    check_same_parent,
    read_parent,
    read_parent_again,
    start_settings,
)
from cardigan.experiment.training_run import run_facts, train_with_smaller_microbatches
from cardigan.overrides import from_dict, override, to_dict
from cardigan.plugins import missing_plugins_message
from cardigan.recipes import AUTOMATIC_RECIPES, config_for
from cardigan.run.checkpoint import list_checkpoints
from cardigan.run.directory import (
    RunDirectory,
    check_unused,
    latest_run,
    new_run,
    read_config,
    read_provenance,
    reserve_run,
)
from cardigan.run.integrity import check_unchanged
from cardigan.run.journal import Event
from cardigan.training.budget import Clock
from cardigan.training.devices import open_devices
from cardigan.training.distributed import ProcessGroup, is_restarted, job_id, rank

RUNS_FOLDER = Path("runs")


def run_training(
    source: "str | Path | Reader | np.ndarray | torch.Tensor | Dataset[Any]",
    recipe: str | None,
    out: str | Path | None,
    images: int | None,
    minutes: float | None,
    seed: int | None,
    resume: bool,
    overrides: dict[str, Any],
    config: Config | None,
    on_event: Callable[[Event], None],
    started_at: float | None,
    start_from: str | Path | None = None,
    accept_license: bool = False,
) -> Run:
    """Train a GAN; see `cardigan.train`."""
    clock = Clock() if started_at is None else Clock(started_at)
    if config is not None and recipe is not None:
        raise CardiganError(
            f"Both a config and the recipe {recipe!r} were given, and only one can be used: leave one out."
        )
    name, reader = _name_and_reader(source)
    settings = config_for(name, recipe) if config is None else replace(config, data=replace(config.data, source=name))
    settings = with_budget(settings, images, minutes)
    explicit_settings = {**({} if seed is None else {"seed": seed}), **overrides}
    if explicit_settings.get("data.labels"):
        explicit_settings["data.labels"] = absolute_labels(explicit_settings["data.labels"])
    configured = explicit_settings.pop("start_from", settings.start_from)
    model = str(start_from or configured or "")
    settings = override(replace(settings, start_from=""), explicit_settings)
    resume = resume or _is_restart_of(settings, None if out is None else Path(out))
    with _run_directory(settings, None if out is None else Path(out), resume) as run:
        check_unused(run, resume)
        if resume and run.config.exists():
            check_unchanged(run)
            _check_plugins(run)
        reasons: list[str] = []
        measured: float | None = None
        previous = read_config(run) if resume and run.config.exists() else None
        if model == AUTO:
            model = _choose_starter(run, previous, settings, reader, reasons)
        parent, inherited = _read_parent(run, previous, model, accept_license), set[str]()
        if previous is not None:
            settings = replace(settings, start_from=previous.start_from)
        elif parent is not None:
            is_fixed = recipe is not None or config is not None
            same_source = reader is None and parent.snapshot.config.data.source == name
            settings, inherited = start_settings(settings, parent, explicit_settings, is_fixed, same_source)
        is_started = previous is not None and bool(previous.start_from)
        if config is None and (reader is not None or name not in BUILTIN_DATASETS or is_started):
            if previous is not None:
                if recipe is not None and recipe != previous.recipe:
                    raise CardiganError(
                        f"{run.path} was trained with the recipe {previous.recipe!r}, not {recipe!r}: "
                        "leave --recipe out to resume it."
                    )
                settings = override(
                    with_budget(replace(previous, data=replace(previous.data, source=name)), images, minutes),
                    explicit_settings,
                )
            else:
                budget = {key for key, value in (("images", images), ("minutes", minutes)) if value is not None}
                if reader is None and not is_shards(name):
                    reader = reader_from_config(settings.data)
                settings, choices, measured = _auto_config(
                    settings,
                    {*explicit_settings, *inherited, *budget},
                    reader,
                    recipe not in (None, *AUTOMATIC_RECIPES),
                    run_facts(run, resume),
                    is_start=parent is not None,
                )
                reasons += choices
        elif config is None and recipe is None:
            settings, choices = auto_augmentation(settings, {*explicit_settings, *inherited})
            reasons += choices
        return train_with_smaller_microbatches(
            run, settings, resume, clock, on_event, reader, reasons, measured, parent
        )


def _read_parent(run: RunDirectory, previous: Config | None, model: str, accept_license: bool) -> Parent | None:
    """Return the model to start from, if there is one. A run that has a checkpoint no longer needs it."""
    if previous is None:
        return read_parent(model, accept_license) if model else None
    if model:
        check_same_parent(model, previous.start_from, run.path)
    if previous.start_from and not list_checkpoints(run.checkpoints):
        return read_parent_again(model, previous.start_from, run.path)
    return None


def _choose_starter(
    run: RunDirectory, previous: Config | None, settings: Config, reader: Reader | None, reasons: list[str]
) -> str:
    """Return the folder of the starter nearest to the images, with the line that says so added to `reasons`.

    Nothing for a run to resume that has chosen one before and no longer needs it.
    """
    if previous is not None and previous.start_from and list_checkpoints(run.checkpoints):
        return ""
    nearest = find_nearest_starter(settings.data, reader)
    reasons.append(proposal(nearest, is_chosen=True))
    return str(nearest.starter.folder)  # a name could be that of a folder here


def _check_plugins(run: RunDirectory) -> None:
    """Raise CardiganError if the run was trained with a plug-in that is not installed here."""
    plugins = read_provenance(run).get("plugins")
    missing = missing_plugins_message(plugins) if isinstance(plugins, dict) else ""
    if missing:
        raise CardiganError(f"{run.path} cannot be resumed here. {missing}")


def _name_and_reader(
    source: "str | Path | Reader | np.ndarray | torch.Tensor | Dataset[Any]",
) -> tuple[str, Reader | None]:
    """Return the name of a source, and its reader if the source is not a name but the images themselves."""
    if isinstance(source, str | Path):
        return absolute_source(str(source)), None
    if isinstance(source, Reader):
        if source.name in BUILTIN_DATASETS:
            raise CardiganError(
                f"The reader is called {source.name!r}, which is the name of a built-in data set: give it another name."
            )
        return source.name, source
    reader = array_reader(source) if isinstance(source, np.ndarray | torch.Tensor) else torch_dataset_reader(source)
    return reader.name, reader


def _auto_config(
    config: Config,
    explicit_settings: set[str],
    reader: Reader | None,
    recipe_given: bool,
    facts: dict[str, str],
    is_start: bool,
) -> tuple[Config, list[str], float | None]:
    """Return settings chosen for these images and this machine, the reasons, and the measured throughput.

    The main process chooses for all. The throughput is None if it was not measured.
    """
    devices = open_devices(config, facts)
    single_process_devices = replace(devices, process_group=ProcessGroup())
    throughputs: dict[Config, float] = {}

    def throughput(candidate: Config) -> float:
        if candidate not in throughputs:
            throughputs[candidate] = devices.process_group.world_size * build.measure_throughput_within_memory(
                candidate, single_process_devices
            )
        return throughputs[candidate]

    def choose_on_main() -> str:
        settings, reasons = auto_config(
            config, explicit_settings, dataset_stats(config.data, reader), devices.device.type, throughput, recipe_given
        )
        measured = next(reversed(throughputs.values()), None)  # of the settings that were chosen
        if not (is_start or recipe_given) and (nearest := nearest_starter(config.data, reader)) is not None:
            reasons.append(proposal(nearest))
        return json.dumps([to_dict(settings), reasons, measured])

    try:
        values, reasons, measured = json.loads(
            devices.process_group.broadcast(devices.process_group.on_main_process(choose_on_main) or "")
        )
    except CardiganError:
        devices.process_group.destroy()
        raise
    return from_dict(values), reasons, measured


def with_budget(config: Config, images: int | None, minutes: float | None) -> Config:
    """Return the config with this budget instead of its own, if one is given."""
    return config if images is None and minutes is None else replace(config, images=images, minutes=minutes)


def _run_name(config: Config) -> str:
    is_builtin = config.data.source in BUILTIN_DATASETS
    return config.recipe if is_builtin else default_run_name(config.data.source) or config.recipe


def _is_restart_of(config: Config, out: Path | None) -> bool:
    """Return whether torchrun restarted this process (--max-restarts) after its job had begun this run.

    Such a process resumes by itself. A run of another job still needs --resume.
    """
    if not is_restarted():
        return False
    try:
        run = latest_run(RUNS_FOLDER, _run_name(config)) if out is None else RunDirectory(out)
        return read_provenance(run).get("job") == job_id()
    except CardiganError:  # there is no such run yet
        return False


@contextmanager
def _run_directory(config: Config, out: Path | None, resume: bool) -> Iterator[RunDirectory]:
    """Yield the run directory.

    A new directory without a given name is reserved at once, so that two runs started in the same second differ.
    """
    name = _run_name(config)
    if out is not None:
        yield RunDirectory(out)
    elif resume:
        yield latest_run(RUNS_FOLDER, name)
    elif rank() == 0:
        with reserve_run(RUNS_FOLDER, name) as run:
            yield run
    else:
        yield new_run(RUNS_FOLDER, name)  # replaced by the main process's directory later
