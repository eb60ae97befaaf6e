"""One training: builds everything from the settings, resumes, trains, and retries with less memory.

`session.py` decides the settings and the run directory.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cardigan.config import Config
from cardigan.data.datasets import Datasets, open_datasets, source_facts
from cardigan.data.reader import Reader
from cardigan.data.source import ImageSpec
from cardigan.data.webdataset.shards import is_shards
from cardigan.errors import CardiganError, CollectiveError
from cardigan.experiment import build
from cardigan.experiment.finished_run import Run
from cardigan.experiment.start_from import Parent, parent_facts, start_networks
from cardigan.hardware.memory import keep_freed_memory, release_memory
from cardigan.hardware.out_of_memory import is_out_of_memory
from cardigan.nets.interface import Discriminator, Generator
from cardigan.run.checkpoint import load_latest_checkpoint
from cardigan.run.directory import RunDirectory, lock_for_training, read_provenance, release_lock
from cardigan.run.journal import Event
from cardigan.run.provenance import provenance
from cardigan.training.budget import Budget, Clock
from cardigan.training.cuda_graph import cuda_graph_step
from cardigan.training.devices import Devices, open_devices
from cardigan.training.distributed import ProcessLost, job_id, world_size
from cardigan.training.loop import Trainer, fit, make_step
from cardigan.training.probe import TrainingProbe
from cardigan.training.recorder import Recorder
from cardigan.training.schedule import step_kinds
from cardigan.training.state import TrainState, load_state_tensors, state_tensors


def train_with_smaller_microbatches(
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
    devices = open_devices(config, run_facts(run, resume))
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


def run_facts(run: RunDirectory, resume: bool) -> dict[str, str]:
    """Return what all processes must see alike of the run to resume: one that does not see it would start again."""
    facts = {"--resume": "on" if resume else "off"}
    return {**facts, f"the run {run.path}": "there" if run.config.exists() else "not there"} if resume else facts
