"""The model behind the address: what it is, and how it draws, whichever program computes it.

Knows files of models; not who asks.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch

from cardigan.config import Config, identity
from cardigan.data.source import ImageSpec
from cardigan.errors import CardiganError
from cardigan.exports.record import given_away
from cardigan.hardware.device import find_device
from cardigan.hardware.memory import is_out_of_memory
from cardigan.latents import sample_labels, sample_latents, truncated
from cardigan.pixels import encode
from cardigan.run.pretrained import sha256_of
from cardigan.run.snapshot import Snapshot, read_snapshot, weights_file
from cardigan.serve.onnx import open_onnx
from cardigan.shapes import Images, Labels, Latents, Pixels

ATTEMPTS = 5
"""How often a file is read that changes while it is read."""
Compute: TypeAlias = Callable[[Latents, Labels | None], Images]


@dataclass(frozen=True)
class Served:
    """A model that is served; `draw` gives each picture the same bits whatever stands beside it."""

    name: str
    config: Config
    spec: ImageSpec
    images_seen: int
    sha256: str
    """Of the file of weights."""
    backend: str
    device: str
    compute: Compute
    sizes: tuple[int, ...]
    """So many pictures are computed at a time, fewer filled up: the largest first, then those that were seen to give the same bits."""

    @property
    def batch(self) -> int:
        return self.sizes[0]

    def size(self, count: int) -> int:
        """Return how many are computed where `count` are wanted, at most a whole batch."""
        return min(size for size in self.sizes if size >= count)

    def draw(self, z: Latents, labels: Labels | None) -> Pixels:
        """Return the pictures of at most a whole batch."""
        empty = self.size(len(z)) - len(z)
        filled = torch.cat([z, z.new_zeros(empty, z.shape[1])])
        classes = None if labels is None else torch.cat([labels, labels.new_zeros(empty)])
        return encode(self.compute(filled, classes))[: len(z)].cpu()

    def latents(self, keys: list[tuple[int, int]], truncation: float) -> Latents:
        """Return the z of each key (seed, number)."""
        return truncated(sample_latents(self.config.latent.distribution, keys, self.config.latent.size), truncation)

    def classes(self, keys: list[tuple[int, int]]) -> Labels | None:
        """Return the class of each key where none is asked for, as `Model.sample` draws it; None without classes."""
        return sample_labels(keys, self.spec.classes) if self.spec.classes else None


def open_model(path: Path, backend: str, device: str, batch: int) -> Served:
    """Return the model at `path`: a run directory, a checkpoint or a file of weights for pytorch, an exported NAME.onnx for onnx.

    Raises CardiganError for anything else, and for a batch that does not fit into the memory.
    """
    served = _open_onnx(path, batch) if backend == "onnx" else _open_pytorch(path, device, batch)
    try:
        return replace(served, sizes=(batch, *_equal_sizes(served)))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise CardiganError(f"{batch} pictures at a time do not fit into the memory of {served.device}: give a smaller --batch.") from error


def _equal_sizes(served: Served) -> list[int]:
    """Return the smaller batches that give the very numbers of the whole one, before they are rounded to grey levels.

    A library may choose another order of adding up for another size; then small requests are filled up to a whole batch, as `cardigan sample` does.
    """
    keys = [(seed, 0) for seed in range(served.batch)]
    z, labels = served.latents(keys, 1.0), served.classes(keys)
    whole = served.compute(z, labels)

    def is_equal(size: int) -> bool:
        parts = [slice(start, start + size) for start in range(0, served.batch, size)]
        return torch.equal(torch.cat([served.compute(z[part], None if labels is None else labels[part]) for part in parts]), whole)

    return [size for size in (served.batch // 2, served.batch // 4, served.batch // 8) if size and served.batch % size == 0 and is_equal(size)]


def facts(served: Served) -> dict[str, Any]:
    """Return what there is to know of the model, as plain JSON values."""
    spec, latent = served.spec, served.config.latent
    return {
        "name": served.name,
        "recipe": served.config.recipe,
        "images_seen": served.images_seen,
        "sha256": served.sha256,
        "height": spec.height,
        "width": spec.width,
        "channels": spec.channels,
        "classes": spec.classes,
        "class_names": list(spec.class_names),
        "latent": {"size": latent.size, "distribution": latent.distribution},
        "backend": served.backend,
        "device": served.device,
        "batch": served.batch,
        "batch_sizes": list(served.sizes),
        "config": identity(served.config),
    }


def _open_pytorch(path: Path, device: str, batch: int) -> Served:
    if path.suffix == ".onnx":
        raise CardiganError(f"{path} is an ONNX file, which PyTorch does not read: add --backend onnx, or give the run directory.")
    snapshot, sha256 = _read_whole(path)
    place = find_device(device)
    generator = snapshot.generator.to(place)

    @torch.no_grad()
    def compute(z: Latents, labels: Labels | None) -> Images:
        return generator(z.to(place), None if labels is None else labels.to(place))

    name, known = path.absolute().name, given_away(snapshot)
    return Served(name, known.config, snapshot.spec, snapshot.images_seen, sha256, "pytorch", str(place), compute, (batch,))


def _read_whole(path: Path) -> tuple[Snapshot, str]:
    """Return a model and the hash of the file it was read from, which a training may replace meanwhile."""
    before = ""
    for _ in range(ATTEMPTS):
        snapshot, after = read_snapshot(path), sha256_of(weights_file(path))
        if after == before:
            return snapshot, after
        before = after
    raise CardiganError(f"{path} is written anew faster than it can be read: give one of its checkpoints.")


def _open_onnx(path: Path, batch: int) -> Served:
    opened = open_onnx(path)
    return Served(path.stem, opened.config, opened.spec, opened.images_seen, sha256_of(path), "onnx", "cpu", opened.compute, (batch,))
