"""The served model: its metadata and its forward pass, with either backend.

Reads model files. Independent of HTTP.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch

from cardigan.config import Config
from cardigan.data.source import ImageSpec
from cardigan.errors import CardiganError
from cardigan.exports.anonymize import anonymized
from cardigan.exports.card import weights_hash
from cardigan.files.sha256 import file_sha256
from cardigan.hardware.device import find_device
from cardigan.hardware.out_of_memory import is_out_of_memory
from cardigan.latents.sampling import sample_latents, truncate
from cardigan.models.sampling import CPU_BATCH_SIZE, random_labels, sample_batch_size
from cardigan.models.snapshot import Snapshot, read_snapshot, weights_file
from cardigan.overrides import experiment_settings
from cardigan.pixels import encode
from cardigan.serve.onnx_backend import open_onnx
from cardigan.shapes import Images, Labels, Latents, Pixels

READ_ATTEMPTS = 5
"""Maximum number of times a file is read that changes meanwhile."""
ForwardFn: TypeAlias = Callable[[Latents, Labels | None], Images]


@dataclass(frozen=True)
class ServedModel:
    """A served model. `generate` gives each image the same bits whatever else is in its batch."""

    name: str
    config: Config
    spec: ImageSpec
    images_seen: int
    sha256: str
    """Hash of the weights file."""
    backend: str
    device: str
    forward: ForwardFn
    marked_sha256: str
    """What marks in images name: the SHA-256 of the fp32 weights, or of an ONNX file."""
    batch_sizes: tuple[int, ...]
    """Batch sizes that are computed; smaller batches are padded. The largest, then those with bit-identical results."""

    @property
    def batch_size(self) -> int:
        return self.batch_sizes[0]

    def padded_size(self, num_images: int) -> int:
        """Return the smallest batch size that holds `num_images`, which is at most `batch_size`."""
        return min(batch_size for batch_size in self.batch_sizes if batch_size >= num_images)

    def generate(self, z: Latents, labels: Labels | None) -> Pixels:
        """Return the images of at most `batch_size` latents."""
        num_padding = self.padded_size(len(z)) - len(z)
        padded_z = torch.cat([z, z.new_zeros(num_padding, z.shape[1])])
        padded_labels = None if labels is None else torch.cat([labels, labels.new_zeros(num_padding)])
        return encode(self.forward(padded_z, padded_labels))[: len(z)].cpu()

    def sample_latents(self, keys: list[tuple[int, int]], truncation: float) -> Latents:
        """Return the z of each key (seed, number)."""
        return truncate(sample_latents(self.config.latent.distribution, keys, self.config.latent.size), truncation)

    def sample_labels(self, keys: list[tuple[int, int]]) -> Labels | None:
        """Return each key's random class, the same as in `Model.sample`; None for an unconditional generator."""
        return random_labels(self.spec, keys)


def open_served_model(path: Path, backend: str, device: str, batch_size: int | None = None) -> ServedModel:
    """Open a run directory, checkpoint or weights file with pytorch, or an exported NAME.onnx with onnx.

    `batch_size` defaults to that of `cardigan sample`, which makes images bit-identical to its own.
    Raises CardiganError for anything else, and for a batch that does not fit into memory.
    """
    model = _open_onnx(path, batch_size) if backend == "onnx" else _open_pytorch(path, device, batch_size)
    try:
        return replace(model, batch_sizes=(*model.batch_sizes, *_bit_identical_batch_sizes(model)))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise CardiganError(
            f"A batch of {model.batch_size} images does not fit into the memory of {model.device}: give a smaller "
            "--batch-size."
        ) from error


def _bit_identical_batch_sizes(model: ServedModel) -> list[int]:
    """Return the smaller batch sizes whose float outputs are bit-identical to those of the full batch.

    A library may sum in another order for another size. Small requests are then padded to a full batch, as in
    `cardigan sample`.
    """
    keys = [(seed, 0) for seed in range(model.batch_size)]
    z, labels = model.sample_latents(keys, 1.0), model.sample_labels(keys)
    full_batch = model.forward(z, labels)

    def is_equal(size: int) -> bool:
        slices = [slice(start, start + size) for start in range(0, model.batch_size, size)]
        return torch.equal(
            torch.cat([model.forward(z[part], None if labels is None else labels[part]) for part in slices]), full_batch
        )

    return [
        size
        for size in (model.batch_size // 2, model.batch_size // 4, model.batch_size // 8)
        if size and model.batch_size % size == 0 and is_equal(size)
    ]


def model_info(model: ServedModel) -> dict[str, Any]:
    """Return the model's metadata as plain JSON values."""
    spec, latent = model.spec, model.config.latent
    return {
        "name": model.name,
        "recipe": model.config.recipe,
        "images_seen": model.images_seen,
        "sha256": model.sha256,
        "height": spec.height,
        "width": spec.width,
        "channels": spec.channels,
        "classes": spec.num_classes,
        "class_names": list(spec.class_names),
        "latent": {"size": latent.size, "distribution": latent.distribution},
        "backend": model.backend,
        "device": model.device,
        "batch_size": model.batch_size,
        "batch_sizes": list(model.batch_sizes),
        "config": experiment_settings(model.config),
    }


def _open_pytorch(path: Path, device: str, batch_size: int | None) -> ServedModel:
    if path.suffix == ".onnx":
        raise CardiganError(
            f"{path} is an ONNX file, which PyTorch cannot read: add --backend onnx, or give the run directory."
        )
    snapshot, sha256 = _read_unchanged(path)
    torch_device = find_device(device)
    generator = snapshot.generator.to(torch_device)

    @torch.no_grad()
    def forward(z: Latents, labels: Labels | None) -> Images:
        return generator(z.to(torch_device), None if labels is None else labels.to(torch_device))

    name, public_snapshot = path.absolute().name, anonymized(snapshot)
    return ServedModel(
        name,
        public_snapshot.config,
        snapshot.spec,
        snapshot.images_seen,
        sha256,
        "pytorch",
        str(torch_device),
        forward,
        weights_hash(public_snapshot.generator),
        (batch_size or sample_batch_size(torch_device),),
    )


def _read_unchanged(path: Path) -> tuple[Snapshot, str]:
    """Return a model and the hash of its file. A training run may replace the file between the two reads."""
    previous_sha256 = ""
    for _ in range(READ_ATTEMPTS):
        snapshot, sha256 = read_snapshot(path), file_sha256(weights_file(path))
        if sha256 == previous_sha256:
            return snapshot, sha256
        previous_sha256 = sha256
    raise CardiganError(f"{path} changes faster than it can be read: give one of its checkpoints.")


def _open_onnx(path: Path, batch_size: int | None) -> ServedModel:
    onnx_model = open_onnx(path)
    return ServedModel(
        path.stem,
        onnx_model.config,
        onnx_model.spec,
        onnx_model.images_seen,
        file_sha256(path),
        "onnx",
        "cpu",
        onnx_model.forward,
        file_sha256(path),
        (batch_size or CPU_BATCH_SIZE,),
    )
