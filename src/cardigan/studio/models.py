"""The models of runs, loaded once each: a run's generator as it is now, or as a checkpoint kept it, alone or with its discriminator.

Asked from the room's one thread only. A file that training has replaced is another model.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from cardigan.explore.directions import Directions
from cardigan.explore.views import directions_of
from cardigan.run.directory import RunDirectory
from cardigan.run.players import Players, read_players
from cardigan.run.snapshot import Snapshot, read_snapshot
from cardigan.studio.places import Folder, NotThere, is_model
from cardigan.studio.reading import checkpoints
from cardigan.studio.rooms import MAX_MODELS, Kept

Found = TypeVar("Found")


class Models:
    """At most a few models, those used last."""

    def __init__(self, folder: Folder, device: torch.device) -> None:
        self._folder, self._device = folder, device
        self._models, self._directions = Kept(MAX_MODELS), Kept(4 * MAX_MODELS)

    def snapshot(self, run: RunDirectory, checkpoint: int | None = None) -> Snapshot:
        """Return the run's averaged generator; raises NotThere for a checkpoint that is not kept, CardiganError for a run that has none yet."""
        path = run.path if checkpoint is None else self._checkpoint(run, checkpoint)
        return self._models.get(("snapshot", *self._mark(run, checkpoint)), lambda: self._placed(read_snapshot(path)))

    def players(self, run: RunDirectory, checkpoint: int | None = None) -> Players:
        """Return both players, of the newest checkpoint where none is named."""
        kept = checkpoints(run)
        if checkpoint is None and not kept:
            raise NotThere(f"The run {run.path.name!r} keeps no checkpoint, which is where a discriminator is.")
        named = kept[-1] if checkpoint is None else checkpoint
        path = self._checkpoint(run, named)
        return self._models.get(("players", *self._mark(run, named)), lambda: self._both(read_players(path)))

    def directions(self, run: RunDirectory, checkpoint: int | None = None) -> Directions:
        """Return the principal directions of the run's generator."""
        snapshot = self.snapshot(run, checkpoint)
        return self._directions.get(self._mark(run, checkpoint), lambda: directions_of(snapshot))

    def kept(self, run: RunDirectory, what: str, make: Callable[[], Found]) -> Found:
        """Return something large that belongs to a run, such as its training pictures; it takes a model's place."""
        facts = [path.stat() if path.exists() else None for path in (run.config, run.source)]
        mark = tuple((each.st_ino, each.st_mtime_ns) for each in facts if each is not None)
        return self._models.get((what, run.path, mark), make)

    def _placed(self, snapshot: Snapshot) -> Snapshot:
        return replace(snapshot, generator=snapshot.generator.to(self._device))

    def _both(self, players: Players) -> Players:
        return replace(players, snapshot=self._placed(players.snapshot), discriminator=players.discriminator.to(self._device))

    def _checkpoint(self, run: RunDirectory, images_seen: int) -> Path:
        if images_seen not in checkpoints(run):
            raise NotThere(f"The run {run.path.name!r} keeps no checkpoint at {images_seen:,} images.")
        path = run.checkpoints / f"{images_seen:08d}"
        self._folder.file(run, path / "state.safetensors", f"checkpoint at {images_seen:,} images")
        return path

    def _mark(self, run: RunDirectory, checkpoint: int | None) -> tuple[str, int, int]:
        """Return what tells the file that a model is read from, as it is now, from every other."""
        if is_model(run):
            file = run.path
        elif checkpoint is not None:
            file = self._checkpoint(run, checkpoint) / "state.safetensors"
        elif run.generator.exists():
            file = self._folder.file(run, run.generator, "generator")
        else:
            kept = checkpoints(run)  # as reading it does; without one it will say what is missing
            return self._mark(run, kept[-1]) if kept else (str(run.path), 0, 0)
        facts = file.stat()
        return str(file), facts.st_ino, facts.st_mtime_ns
