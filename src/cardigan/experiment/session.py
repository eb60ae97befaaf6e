"""One training run from start to end: run directory, automatic settings, resuming, smaller microbatches if needed."""

import json
import sys
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
from cardigan.data.datasets import Datasets, dataset_stats, open_datasets, reader_from_config, source_facts
from cardigan.data.formats.arrays import array_reader
from cardigan.data.formats.torch_dataset import torch_dataset_reader
from cardigan.data.reader import Reader
from cardigan.data.source import ImageSpec
from cardigan.data.source_names import absolute_labels, absolute_source, default_run_name
from cardigan.data.webdataset.shards import is_shards
from cardigan.errors import CardiganError, CollectiveError
from cardigan.experiment import build
from cardigan.experiment.auto import auto_augmentation, auto_config
from cardigan.experiment.finished_run import Run
from cardigan.experiment.nearest_starter import AUTO, find_nearest_starter, nearest_starter, proposal
from cardigan.experiment.start_from import (
    Parent,
    check_same_parent,
    parent_facts,
    read_parent,
    read_parent_again,
    start_networks,
    start_settings,
)
from cardigan.hardware.memory import keep_freed_memory, release_memory
from cardigan.hardware.out_of_memory import is_out_of_memory
from cardigan.nets.interface import Discriminator, Generator
from cardigan.overrides import from_dict, override, to_dict
from cardigan.plugins import missing_plugins_message
from cardigan.recipes import AUTOMATIC_RECIPES, config_for
from cardigan.run.checkpoint import list_checkpoints, load_latest_checkpoint
from cardigan.run.directory import (
    RunDirectory,
    check_unused,
    latest_run,
    lock_for_training,
    new_run,
    read_config,
    read_provenance,
    release_lock,
    reserve_run,
)
from cardigan.run.integrity import check_unchanged
from cardigan.run.journal import Event
from cardigan.run.provenance import provenance
from cardigan.training.budget import Budget, Clock
from cardigan.training.cuda_graph import cuda_graph_step
from cardigan.training.devices import Devices, open_devices
from cardigan.training.distributed import ProcessGroup, ProcessLost, is_restarted, job_id, rank, world_size
from cardigan.training.loop import Trainer, fit, make_step
from cardigan.training.probe import TrainingProbe
from cardigan.training.recorder import Recorder
from cardigan.training.schedule import step_kinds
from cardigan.training.state import TrainState, load_state_tensors, state_tensors

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
                    _run_facts(run, resume),
                    is_start=parent is not None,
                )
                reasons += choices
        elif config is None and recipe is None:
            settings, choices = auto_augmentation(settings, {*explicit_settings, *inherited})
            reasons += choices
        return _train_with_smaller_microbatches(
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
    """Return the name of the starter nearest to the images, with the line that says so added to `reasons`.

    Nothing for a run to resume that has chosen one before and no longer needs it.
    """
    if previous is not None and previous.start_from and list_checkpoints(run.checkpoints):
        return ""
    nearest = find_nearest_starter(settings.data, reader)
    reasons.append(proposal(nearest))
    return nearest.starter.name


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


def _run_facts(run: RunDirectory, resume: bool) -> dict[str, str]:
    """Return what all processes must see alike of the run to resume: one that does not see it would start again."""
    facts = {"--resume": "on" if resume else "off"}
    return {**facts, f"the run {run.path}": "there" if run.config.exists() else "not there"} if resume else facts


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


def _train_with_smaller_microbatches(
    run: RunDirectory,
    config: Config,
    resume: bool,
    clock: Clock,
    on_event: Callable[[Event], None],
    reader: Reader | None,
    messages: list[str],
    measured_throughput: float | None,
    parent: Parent | None,
) -> Run:
    """Train, with smaller microbatches whenever memory runs out."""
    while True:
        try:
            return _train_once(run, config, resume, clock, on_event, reader, messages, measured_throughput, parent)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if world_size() > 1:
                raise CardiganError(
                    f"{config.batch_size // config.gradient_accumulation // world_size()} images at a time do not fit "
                    f"into the memory of one process: set gradient_accumulation to {2 * config.gradient_accumulation}, "
                    "or make the images or networks smaller."
                ) from error
            smaller = build.halve_microbatch(config)
            if smaller is None:
                raise CardiganError(
                    f"Even {config.batch_size // config.gradient_accumulation} images of "
                    f"{config.data.height}x{config.data.width} at a time do not fit into memory: "
                    "make the networks narrower (generator.width, discriminator.width) or the images smaller (--size)."
                ) from error
        messages = [
            f"{config.batch_size // config.gradient_accumulation} images at a time do not fit into memory, "
            f"so it is {smaller.batch_size // smaller.gradient_accumulation} now; the batch size is still "
            f"{config.batch_size} (gradient_accumulation {smaller.gradient_accumulation})"
        ]
        config, resume = smaller, run.config.exists()
        clock = Clock() if resume else clock  # the checkpoint holds the time already spent
        release_memory()  # frees what the failed attempt held


def _train_once(
    run: RunDirectory,
    config: Config,
    resume: bool,
    clock: Clock,
    on_event: Callable[[Event], None],
    reader: Reader | None,
    start_messages: list[str],
    measured_throughput: float | None,
    parent: Parent | None,
) -> Run:
    # All errors of the config are raised before the run directory is touched.
    devices = open_devices(config, _run_facts(run, resume))
    process_group = devices.process_group
    with process_group.membership():
        build.check_buildable(config, devices)  # fails before decoding, which can take minutes
        datasets = _open_datasets(config, devices, clock, on_event, reader)
        spec = build.build_spec(config, datasets.train, datasets.messages)
        state, started = _build_state(config, spec, devices, parent)
        process_group.check_agreement(source_facts(datasets) if world_size() > 1 else {})
        process_group.check_same_tensors(state_tensors(state))
        step_config = build.build_step_config(config, devices)
        build.check_all_labeled(config, datasets)
        batches, prefetcher = build.build_batches(config, datasets, devices)
        run = RunDirectory(Path(process_group.broadcast(str(run.path))))
        made_by = {
            **provenance(sys.argv, devices.device, devices.arithmetic),
            **_machine_facts(),
            **_origin(run, resume, parent, started),
        }
        changes = _machine_changes(run, devices) if resume and process_group.is_main else []
        lock = process_group.on_main_process(
            lambda: lock_for_training(run, config, made_by, resume, datasets.source_fingerprint)
        )
        recorder = None
        try:
            state, messages, clock = _load_latest_checkpoint(run, state, clock) if resume else (state, [], clock)
            if resume:
                process_group.check_agreement(
                    {f"images_seen of the last checkpoint in {run.path}": f"{state.images_seen}"}
                )
                process_group.check_same_tensors(state_tensors(state))
            budget = Budget(config, process_group, clock, lambda: prefetcher is not None and prefetcher.is_waiting)
            with budget.signal_handlers(), keep_freed_memory():
                if process_group.is_main:
                    holdout = None if datasets.holdout is None else datasets.holdout.to(devices.device)
                    callbacks, probe = (
                        build.build_callbacks(config, batches, run, holdout),
                        TrainingProbe(config, batches, holdout, step_config),
                    )
                    recorder = Recorder(
                        run, config, spec, clock, callbacks, on_event, probe, prefetcher, measured_throughput
                    )
                    recorder.start(state, [*start_messages, *started, *messages, *changes, *datasets.messages])
                step, on_note = make_step(state, batches, step_config), None if recorder is None else recorder.note
                run_step = cuda_graph_step(step, devices.device, process_group.world_size, step_kinds(config), on_note)
                state, reason = fit(
                    Trainer(config, batches, step_config, run_step, budget, recorder, run, prefetcher), state
                )
        except ProcessLost as error:
            if recorder is not None:
                recorder.note(str(error))
            raise
        finally:
            if prefetcher is not None:
                prefetcher.close()
            if lock is not None:
                release_lock(lock)
    if reason == "minutes" and not state.images_seen:
        raise CollectiveError(
            f"The budget of {config.minutes:g} minutes was spent before the first step, after "
            f"{clock.elapsed_seconds():,.0f} s: give more --minutes (with --resume, since {run.path} exists now)."
        )
    return Run(run.path, config, state.images_seen, reason)


def _machine_changes(run: RunDirectory, devices: Devices) -> list[str]:
    """Return messages about what changes the bits of the result, if the run was trained with it so far."""
    before = read_provenance(run) if run.config.exists() else {}
    now = _machine_facts()
    arithmetic, threads, processes = (before.get(name) for name in ("arithmetic", "num_threads", "num_processes"))
    messages = []
    if arithmetic not in (None, devices.arithmetic):
        messages.append(
            f"the networks were computed in {arithmetic} so far and are computed in {devices.arithmetic} from here on, "
            f"on {devices.device}: the result will not be bit-identical to a run in {arithmetic} only (--precision)"
        )
    if threads not in (None, torch.get_num_threads()) and devices.device.type == "cpu":
        messages.append(
            f"trained with {threads} threads per process so far and with {torch.get_num_threads()} from here on: sums "
            f"are rounded differently, so the result will not be bit-identical (OMP_NUM_THREADS={threads} keeps it)"
        )
    if processes not in (None, now["num_processes"]):
        messages.append(
            f"trained by {processes} process{'' if processes == 1 else 'es'} so far and by {now['num_processes']} from "
            "here on: the images are the same in the same order, but sums are rounded differently"
        )
    return messages


def _build_state(
    config: Config, spec: ImageSpec, devices: Devices, parent: Parent | None
) -> tuple[TrainState, list[str]]:
    """Return the state before the first step, and what was done to start it from the parent."""
    if parent is None:
        return build.build_state(config, spec, devices), []
    started: list[str] = []

    def start(generator: Generator, discriminator: Discriminator) -> None:
        started.extend(start_networks(config, spec, parent, generator, discriminator))

    return build.build_state(config, spec, devices, start), started


def _origin(run: RunDirectory, resume: bool, parent: Parent | None, started: list[str]) -> dict[str, Any]:
    """Return what a run remembers of the model it starts from, or started from."""
    if parent is not None:
        return {"parent": parent_facts(parent, started)}
    before = read_provenance(run) if resume and run.config.exists() else {}
    return {name: value for name, value in before.items() if name == "parent"}


def _machine_facts() -> dict[str, Any]:
    """Return what a run remembers of its processes, next to its provenance."""
    return {"num_processes": world_size(), "job": job_id()}


def _open_datasets(
    config: Config, devices: Devices, clock: Clock, on_event: Callable[[Event], None], reader: Reader | None
) -> Datasets:
    """Return the source's images. The main process decodes them first; the others use its cache."""

    started_at_seconds = clock.elapsed_seconds()

    def on_progress(done: int, total: int) -> None:
        on_event(
            Event(
                "decoding",
                0,
                clock.elapsed_seconds(),
                {"done": done, "total": total, "started_at_seconds": started_at_seconds},
            )
        )

    datasets = devices.process_group.on_main_process(lambda: open_datasets(config.data, on_progress, reader))
    # All processes follow the main process.
    is_streamed = devices.process_group.broadcast("" if datasets is None or datasets.make_stream is None else "stream")
    return datasets or open_datasets(
        replace(config.data, cache="none" if is_streamed and not is_shards(config.data.source) else config.data.cache),
        reader=reader,
    )


def _load_latest_checkpoint(run: RunDirectory, state: TrainState, clock: Clock) -> tuple[TrainState, list[str], Clock]:
    """Return the state of the newest valid checkpoint, messages about invalid newer ones, and the continued clock."""
    checkpoint = load_latest_checkpoint(run.checkpoints)
    if checkpoint is None:
        return state, [], clock
    tensors, checkpoint_facts, messages = checkpoint
    load_state_tensors(state, tensors)
    state = replace(
        state, images_seen=checkpoint_facts.images_seen, learning_rate_factor=checkpoint_facts.learning_rate_factor
    )
    return state, messages, replace(clock, earlier_seconds=checkpoint_facts.elapsed_seconds)
