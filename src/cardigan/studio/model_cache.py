"""A cache of loaded models: a run's current generator, or a checkpoint's generator and discriminator.

For the worker thread only. A file that training has replaced is loaded again.
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

Value = TypeVar("Value")
MAX_MODELS = 4


class ModelCache:
    """The most recently used models."""

    def __init__(self, folder: RunsFolder, device: torch.device) -> None:
        self._folder, self._device = folder, device
        self._models, self._directions = LruCache(MAX_MODELS), LruCache(4 * MAX_MODELS)

    def snapshot(self, run: RunDirectory, checkpoint: int | None = None) -> Snapshot:
        """Return the run's EMA generator. Raises NotFound for a missing checkpoint, CardiganError if none exists."""
        path = run.path if checkpoint is None else self._checkpoint_path(run, checkpoint)
        return self._models.get(
            ("snapshot", *self._file_version(run, checkpoint)), lambda: self._to_device(read_snapshot(path))
        )

    def networks(self, run: RunDirectory, checkpoint: int | None = None) -> RunNetworks:
        """Return generator and discriminator of a checkpoint. Default: the newest."""
        available = checkpoint_images_seen(run)
        if checkpoint is None and not available:
            raise NotFound(f"The run {run.path.name!r} has no checkpoint, and only checkpoints have a discriminator.")
        images_seen = available[-1] if checkpoint is None else checkpoint
        path = self._checkpoint_path(run, images_seen)
        return self._models.get(
            ("networks", *self._file_version(run, images_seen)), lambda: self._networks_to_device(load_networks(path))
        )

    def directions(self, run: RunDirectory, checkpoint: int | None = None) -> Directions:
        """Return the principal directions of the run's generator."""
        snapshot = self.snapshot(run, checkpoint)
        return self._directions.get(self._file_version(run, checkpoint), lambda: default_directions(snapshot))

    def cached(self, run: RunDirectory, kind: str, create: Callable[[], Value]) -> Value:
        """Return something large of a run, such as its training images. It takes the place of a model."""
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
            raise NotFound(f"The run {run.path.name!r} has no checkpoint at {images_seen:,} images.")
        path = run.checkpoints / f"{images_seen:08d}"
        self._folder.file(run, path / "state.safetensors", f"checkpoint at {images_seen:,} images")
        return path

    def _file_version(self, run: RunDirectory, checkpoint: int | None) -> tuple[str, int, int]:
        """Return a key for the current version of the file that a model is read from."""
        if is_model_file(run):
            file = run.path
        elif checkpoint is not None:
            file = self._checkpoint_path(run, checkpoint) / "state.safetensors"
        elif run.generator.exists():
            file = self._folder.file(run, run.generator, "generator")
        else:
            available = checkpoint_images_seen(run)  # as `read_snapshot` does, which reports if there is none
            return self._file_version(run, available[-1]) if available else (str(run.path), 0, 0)
        file_stat = file.stat()
        return str(file), file_stat.st_ino, file_stat.st_mtime_ns


class LruCache:
    """Cache of the most recently used entries. Not thread-safe."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._entries: OrderedDict[Any, Any] = OrderedDict()

    def get(self, key: Any, create: Callable[[], Value]) -> Value:
        """Return the entry of the key, created if it is missing."""
        if key not in self._entries:
            while len(self._entries) >= self._max_entries:
                self._entries.popitem(last=False)  # before `create`, to bound the memory
            self._entries[key] = create()
        self._entries.move_to_end(key)
        return self._entries[key]
