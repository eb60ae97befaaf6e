"""The models of runs, loaded once each: a run's generator as it is now, or as a checkpoint kept it, alone or with its discriminator.

Asked from the room's one thread only. A file that training has replaced is another model.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from cardigan.explore.directions import Directions
from cardigan.explore.views import default_directions
from cardigan.models.run_networks import RunNetworks, load_networks
from cardigan.models.snapshot import Snapshot, read_snapshot
from cardigan.run.directory import RunDirectory
from cardigan.studio.run_reader import checkpoint_images_seen
from cardigan.studio.runs_folder import NotFound, RunsFolder, is_model_file
from cardigan.studio.worker import Result

Value = TypeVar("Value")


class ModelCache:
    """At most a few models, those used last."""

    def __init__(self, folder: RunsFolder, device: torch.device) -> None:
        self._folder, self._device = folder, device
        self._models, self._directions = LruCache(MAX_MODELS), LruCache(4 * MAX_MODELS)

    def snapshot(self, run: RunDirectory, checkpoint: int | None = None) -> Snapshot:
        """Return the run's averaged generator; raises NotThere for a checkpoint that is not kept, CardiganError for a run that has none yet."""
        path = run.path if checkpoint is None else self._checkpoint_path(run, checkpoint)
        return self._models.get(
            ("snapshot", *self._file_version(run, checkpoint)), lambda: self._to_device(read_snapshot(path))
        )

    def networks(self, run: RunDirectory, checkpoint: int | None = None) -> RunNetworks:
        """Return both players, of the newest checkpoint where none is named."""
        available = checkpoint_images_seen(run)
        if checkpoint is None and not available:
            raise NotFound(f"The run {run.path.name!r} keeps no checkpoint, which is where a discriminator is.")
        images_seen = available[-1] if checkpoint is None else checkpoint
        path = self._checkpoint_path(run, images_seen)
        return self._models.get(
            ("players", *self._file_version(run, images_seen)), lambda: self._networks_to_device(load_networks(path))
        )

    def directions(self, run: RunDirectory, checkpoint: int | None = None) -> Directions:
        """Return the principal directions of the run's generator."""
        snapshot = self.snapshot(run, checkpoint)
        return self._directions.get(self._file_version(run, checkpoint), lambda: default_directions(snapshot))

    def cached(self, run: RunDirectory, kind: str, create: Callable[[], Value]) -> Value:
        """Return something large that belongs to a run, such as its training pictures; it takes a model's place."""
        file_stats = [path.stat() if path.exists() else None for path in (run.config, run.source)]
        version = tuple((file_stat.st_ino, file_stat.st_mtime_ns) for file_stat in file_stats if file_stat is not None)
        return self._models.get((kind, run.path, version), create)

    def _to_device(self, snapshot: Snapshot) -> Snapshot:
        return replace(snapshot, generator=snapshot.generator.to(self._device))

    def _networks_to_device(self, networks: RunNetworks) -> RunNetworks:
        return replace(
            networks, snapshot=self._to_device(networks.snapshot), discriminator=networks.discriminator.to(self._device)
        )

    def _checkpoint_path(self, run: RunDirectory, images_seen: int) -> Path:
        if images_seen not in checkpoint_images_seen(run):
            raise NotFound(f"The run {run.path.name!r} keeps no checkpoint at {images_seen:,} images.")
        path = run.checkpoints / f"{images_seen:08d}"
        self._folder.file(run, path / "state.safetensors", f"checkpoint at {images_seen:,} images")
        return path

    def _file_version(self, run: RunDirectory, checkpoint: int | None) -> tuple[str, int, int]:
        """Return what tells the file that a model is read from, as it is now, from every other."""
        if is_model_file(run):
            file = run.path
        elif checkpoint is not None:
            file = self._checkpoint_path(run, checkpoint) / "state.safetensors"
        elif run.generator.exists():
            file = self._folder.file(run, run.generator, "generator")
        else:
            available = checkpoint_images_seen(run)  # as reading it does; without one it will say what is missing
            return self._file_version(run, available[-1]) if available else (str(run.path), 0, 0)
        file_stat = file.stat()
        return str(file), file_stat.st_ino, file_stat.st_mtime_ns


MAX_MODELS = 4


class LruCache:
    """The results that were used last, a bounded number of them; for one thread."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._entries: OrderedDict[Any, Any] = OrderedDict()

    def get(self, key: Any, create: Callable[[], Result]) -> Result:
        """Return what is kept under the key, made now if it is not."""
        if key not in self._entries:
            while len(self._entries) >= self._max_entries:
                self._entries.popitem(last=False)  # before the next is made, so that there are never more
            self._entries[key] = create()
        self._entries.move_to_end(key)
        return self._entries[key]
