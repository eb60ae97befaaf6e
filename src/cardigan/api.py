"""The public surface in Python: train, load, sample; and the pieces the tutorial uses one by one.

Everything the command line does goes through here.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from cardigan import assemble, previews
from cardigan.choosing import chosen as choose
from cardigan.choosing import chosen_for_few
from cardigan.config import Config, from_dict, override, to_dict
from cardigan.data.batches import Batches as Batches
from cardigan.data.formats.arrays import array_reader
from cardigan.data.formats.torch_dataset import dataset_reader
from cardigan.data.mnist import mnist as mnist
from cardigan.data.pictures import EMBEDDED, Pictures, called, open_pictures, placed, placed_labels, reader_of, survey_of
from cardigan.data.reader import Reader
from cardigan.data.sharded.shards import is_shards
from cardigan.data.source import ImageSource as ImageSource
from cardigan.data.source import ImageSpec as ImageSpec
from cardigan.errors import CardiganError
from cardigan.exports.deed import Exported as Exported
from cardigan.exports.deed import export as export
from cardigan.hardware.memory import is_out_of_memory, keep_freed_memory, release_memory
from cardigan.latents import sample_latents as sample_latents
from cardigan.latents import training_latents as training_latents
from cardigan.model import Model as Model
from cardigan.model import from_pretrained as from_pretrained
from cardigan.model import load as load
from cardigan.nets.table import build_discriminator as build_discriminator
from cardigan.nets.table import build_generator as build_generator
from cardigan.objective.losses import find_loss as find_loss
from cardigan.recipes import ANY, config_for
from cardigan.rng import stream as stream
from cardigan.run.checkpoint import latest_checkpoint
from cardigan.run.directory import (
    RunDirectory,
    check_free,
    latest_run,
    named_run,
    open_for_training,
    read_config,
    read_provenance,
    release,
    reserved_run,
)
from cardigan.run.journal import Event
from cardigan.run.journal import read_events as read_events
from cardigan.run.provenance import provenance
from cardigan.training.average import update_average as update_average
from cardigan.training.budget import Budget, Clock
from cardigan.training.cuda_graph import recorded_step
from cardigan.training.devices import Devices as Devices
from cardigan.training.devices import open_devices
from cardigan.training.loop import Trial, fit, playing
from cardigan.training.processes import Processes, rank, world_size
from cardigan.training.recorder import Recorder
from cardigan.training.schedule import step_kinds
from cardigan.training.signals import Probe
from cardigan.training.state import TrainState, load_state_tensors
from cardigan.training.steps import Chance as Chance
from cardigan.training.steps import Game as Game
from cardigan.training.steps import Kind as Kind
from cardigan.training.steps import Players as Players
from cardigan.training.steps import Rules as Rules
from cardigan.training.steps import iterate as iterate

RUNS = Path("runs")


@dataclass(frozen=True)
class Run:
    """What a training left behind."""

    path: Path
    config: Config
    images_seen: int
    stopped_by: str
    """images, minutes, patience, health, SIGINT or SIGTERM."""

    def _repr_png_(self) -> bytes | None:
        return previews.run_sheet(self.path)

    def _repr_html_(self) -> str:
        told = f"Run({self.path}: {self.config.recipe}, {self.images_seen:,} images seen, stopped by {self.stopped_by}; generated | real)"
        return previews.figure(previews.run_sheet(self.path), told)


def train(
    source: "str | Path | Reader | np.ndarray | torch.Tensor | Dataset[Any]" = "mnist",
    *,
    recipe: str | None = None,
    out: str | Path | None = None,
    images: int | None = None,
    minutes: float | None = None,
    seed: int | None = None,
    resume: bool = False,
    overrides: dict[str, Any] | None = None,
    config: Config | None = None,
    report: Callable[[Event], None] | None = None,
    started: float | None = None,
) -> Run:
    """Train a GAN and return where it lies.

    `source` is a name (mnist, stacked-mnist), a path or an address (docs/guides/data.md), an array or tensor of pictures [N, H, W] or
    [N, H, W, C], or a torch `Dataset`. The settings are the recipe's (or those of a whole `config`), changed by the arguments and then by
    `overrides`, a dict of dotted names such as `{"batch": 128, "generator.width": 64}`; for a source and no `config`, what is left open is chosen
    for its pictures and this machine, and told. `images` and `minutes` are the budget; whichever ends first, and giving one removes
    the recipe's own. `out` is the run directory, by default
    `runs/<date>-<time>-<name>`, after the source, or after the recipe where that is an embedded one. With `resume` an existing run of the same
    settings goes on, bit for bit as if it had never stopped. `report` is told of every journal event as it happens.
    `started` is the `time.monotonic()` that a budget of minutes counts from, by default now.
    Raises CardiganError for anything that cannot be trained; nothing is written then, and nothing ever overwritten.
    """
    clock, report = Clock() if started is None else Clock(started), report or _ignore
    if config is not None and recipe is not None:
        raise CardiganError(f"Both a config and the recipe {recipe!r} were given, and only one can be followed: leave one out.")
    name, reader = _named(source)
    settings = config_for(name, recipe) if config is None else replace(config, data=replace(config.data, source=name))
    settings = with_budget(settings, images, minutes)
    asked = {**({} if seed is None else {"seed": seed}), **(overrides or {})}
    if asked.get("data.labels"):
        asked["data.labels"] = placed_labels(asked["data.labels"])
    settings = override(settings, asked)
    with _directory(settings, None if out is None else Path(out), resume) as run:
        check_free(run, resume)
        reasons: list[str] = []
        if config is None and (reader is not None or name not in EMBEDDED):
            if resume and run.config.exists():
                before = read_config(run)
                if recipe is not None and recipe != before.recipe:
                    raise CardiganError(f"{run.path} was trained with the recipe {before.recipe!r}, not {recipe!r}: leave --recipe out to resume it.")
                settings = override(with_budget(replace(before, data=replace(before.data, source=name)), images, minutes), asked)
            else:
                budget = {key for key, value in (("images", images), ("minutes", minutes)) if value is not None}
                if reader is None and not is_shards(name):
                    reader = reader_of(settings.data)
                settings, reasons = _chosen_for(settings, {*asked, *budget}, reader, recipe not in (None, ANY))
        elif config is None and recipe is None:
            settings, reasons = chosen_for_few(settings, set(asked))
        return _train_in(run, settings, resume, clock, report, reader, reasons)


def _named(source: "str | Path | Reader | np.ndarray | torch.Tensor | Dataset[Any]") -> tuple[str, Reader | None]:
    """Return what a source is called, and its reader if it is no name but the pictures themselves."""
    if isinstance(source, str | Path):
        return placed(str(source)), None
    if isinstance(source, Reader):
        if source.name in EMBEDDED:
            raise CardiganError(f"The reader is called {source.name!r}, which names embedded digits: give it another name.")
        return source.name, source
    reader = array_reader(source) if isinstance(source, np.ndarray | torch.Tensor) else dataset_reader(source)
    return reader.name, reader


def _chosen_for(config: Config, given: set[str], reader: Reader | None, by_recipe: bool) -> tuple[Config, list[str]]:
    """Return what is chosen for these pictures and this machine, and why; chosen in the main process, the same in all."""
    devices = open_devices(config)
    alone = replace(devices, processes=Processes())
    paces: dict[Config, float] = {}

    def pace(tried: Config) -> float:
        if tried not in paces:
            paces[tried] = devices.processes.world_size * assemble.pace_in_parts(tried, alone)
        return paces[tried]

    def choice() -> str:
        chosen, reasons = choose(config, given, survey_of(config.data, reader), devices.device.type, pace, by_recipe)
        return json.dumps([to_dict(chosen), reasons])

    try:
        values, reasons = json.loads(devices.processes.broadcast(devices.processes.together(choice) or ""))
    except CardiganError:
        devices.processes.leave()
        raise
    return from_dict(values), reasons


def with_budget(config: Config, images: int | None, minutes: float | None) -> Config:
    """Return the config with this budget instead of its own, if any is given."""
    return config if images is None and minutes is None else replace(config, images=images, minutes=minutes)


def _ignore(_: Event) -> None:
    """Report to nobody."""


@contextmanager
def _directory(config: Config, out: Path | None, resume: bool) -> Iterator[RunDirectory]:
    """Yield the run's directory; a new one of no given name is taken at once, so that two trainings begun in one second do not want the same."""
    name = config.recipe if config.data.source in EMBEDDED else called(config.data.source) or config.recipe
    if out is not None:
        yield RunDirectory(out)
    elif resume:
        yield latest_run(RUNS, name)
    elif rank() == 0:
        with reserved_run(RUNS, name) as run:
            yield run
    else:
        yield named_run(RUNS, name)  # until the main process tells its own


def _train_in(
    run: RunDirectory, config: Config, resume: bool, clock: Clock, report: Callable[[Event], None], reader: Reader | None, messages: list[str]
) -> Run:
    """Train, in smaller parts of a batch whenever memory runs out."""
    while True:
        try:
            return _attempt(run, config, resume, clock, report, reader, messages)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if world_size() > 1:
                raise CardiganError(
                    f"{config.batch // config.accumulate // world_size()} pictures at a time do not fit into a process's memory: "
                    f"set accumulate to {2 * config.accumulate}, or the pictures and networks smaller."
                ) from error
            smaller = assemble.smaller_parts(config)
            if smaller is None:
                raise CardiganError(
                    f"Even {config.batch // config.accumulate} pictures of {config.data.height}x{config.data.width} at a time do not fit into "
                    "memory: make the networks narrower (generator.width, discriminator.width) or the pictures smaller (--size)."
                ) from error
        fewer = f"{config.batch // config.accumulate} pictures at a time do not fit into memory, so it is {smaller.batch // smaller.accumulate} now"
        messages = [f"{fewer}; batches are still of {config.batch} (accumulate {smaller.accumulate})"]
        config, resume = smaller, run.config.exists()
        clock = Clock() if resume else clock  # what was spent before is in the checkpoint
        release_memory()  # the failed attempt is gone, with everything it held


def _attempt(
    run: RunDirectory, config: Config, resume: bool, clock: Clock, report: Callable[[Event], None], reader: Reader | None, told: list[str]
) -> Run:
    # Everything that can be wrong with the config shows before the run directory is touched.
    devices = open_devices(config)
    try:
        assemble.check_parts(config, devices)  # before minutes of decoding
        pictures = _opened(config, devices, clock, report, reader)
        spec = assemble.build_spec(config, pictures.training)
        state = assemble.build_state(config, spec, devices)
        rules = assemble.build_rules(config, devices)
        assemble.check_labels(config, pictures)
        batches, feed = assemble.build_batches(config, pictures, devices)
        run = RunDirectory(Path(devices.processes.broadcast(str(run.path))))
        made_by = provenance(sys.argv, devices.device, devices.arithmetic)
        changes = _arithmetic_changes(run, devices) if resume and devices.processes.is_main else []
        held = devices.processes.together(lambda: open_for_training(run, config, made_by, resume, pictures.facts))
        try:
            state, messages, clock = _resumed(run, state, clock) if resume else (state, [], clock)
            budget = Budget(config, devices.processes, clock)
            with budget.listening(), keep_freed_memory():
                recorder = None
                if devices.processes.is_main:
                    held_out = None if pictures.held_out is None else pictures.held_out.to(devices.device)
                    observers, probe = assemble.build_observers(config, batches, run, held_out), Probe(config, batches, held_out, rules)
                    recorder = Recorder(run, config, spec, clock, observers, report, probe, feed)
                    recorder.begin(state, [*told, *messages, *changes, *pictures.notes])
                step, tell = playing(state, batches, rules), None if recorder is None else recorder.note
                play = recorded_step(step, devices.device, devices.processes.world_size, step_kinds(config), tell)
                state, reason = fit(Trial(config, batches, rules, play, budget, recorder, run, feed), state)
        finally:
            if feed is not None:
                feed.close()
            if held is not None:
                release(held)
    finally:
        devices.processes.leave()
    return Run(run.path, config, state.images_seen, reason)


def _arithmetic_changes(run: RunDirectory, devices: Devices) -> list[str]:
    """Return one sentence if the run so far was computed in another arithmetic; an empty list if not."""
    before = read_provenance(run).get("arithmetic") if run.config.exists() else None
    if before in (None, devices.arithmetic):
        return []
    return [
        f"the networks were computed in {before} so far and are computed in {devices.arithmetic} from here on, "
        f"on {devices.device}: the run will not end with the bits it would have had in {before} (--precision)"
    ]


def _opened(config: Config, devices: Devices, clock: Clock, report: Callable[[Event], None], reader: Reader | None) -> Pictures:
    """Return the source's pictures; the main process decodes what has to be decoded, the others find it done."""

    since = clock.elapsed()

    def told(done: int, of: int) -> None:
        report(Event("reading", 0, clock.elapsed(), {"done": done, "of": of, "since": since}))

    found = devices.processes.together(lambda: open_pictures(config.data, told, reader))
    kept = devices.processes.broadcast("" if found is None or found.streamed is None else "stream")  # what one decides of the disk, all do
    return found or open_pictures(
        replace(config.data, keep="stream" if kept and not is_shards(config.data.source) else config.data.keep), reader=reader
    )


def _resumed(run: RunDirectory, state: TrainState, clock: Clock) -> tuple[TrainState, list[str], Clock]:
    """Return the state of the newest whole checkpoint, what was found wrong with newer ones, and the clock that goes on from there."""
    found = latest_checkpoint(run.checkpoints)
    if found is None:
        return state, [], clock
    tensors, facts, messages = found
    load_state_tensors(state, tensors)
    state = replace(state, images_seen=facts.images_seen, learning_rate_factor=facts.learning_rate_factor)
    return state, messages, replace(clock, before=facts.elapsed_seconds)
