"""samples: a synthetic data set of images with labels and a manifest, generated and written in chunks.

`sample_files.py` writes the files. `cardigan train` reads each of the formats.
"""

import hashlib
from collections.abc import Iterator
from functools import partial
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cardigan.data.decoding import open_image
from cardigan.data.formats.detection import open_reader
from cardigan.data.reader import Reader, UnreadableImage
from cardigan.errors import CardiganError
from cardigan.exports.card import sampling_instructions, weights_hash
from cardigan.exports.interface import ExportSettings, WriteFn
from cardigan.exports.sample_files import SAMPLE_WRITERS, SampleChunk, SampleSet
from cardigan.figures.marking import Mark
from cardigan.models.sampling import class_index, random_labels, validate_labels
from cardigan.models.sampling_devices import SampleTask, SamplingDevices, open_sampling
from cardigan.models.snapshot import Snapshot
from cardigan.shapes import Labels

CHUNK_SIZE = 1_024
NUM_VERIFIED = 256
"""Number of evenly spaced samples that are read back and compared with newly generated ones."""


def samples_writer(snapshot: Snapshot, settings: ExportSettings) -> WriteFn:
    """Return the function that writes a folder of PNGs, a .zip, a .npz or a .parquet, by the path's suffix."""
    if snapshot.spec.channels not in (1, 3, 4):
        raise CardiganError(
            f"The images have {snapshot.spec.channels} channels: a sample set supports 1, 3 or 4. "
            "Use `cardigan sample` instead."
        )
    _sample_labels(snapshot, settings, [0])  # invalid settings raise before anything is written

    def write(path: Path, card: str) -> float:
        digest = hashlib.sha256()
        names = snapshot.spec.class_names or tuple(map(str, range(snapshot.spec.num_classes)))
        image_shape = (snapshot.spec.height, snapshot.spec.width, snapshot.spec.channels)
        manifest = _manifest(snapshot, settings)
        with open_sampling(snapshot, settings.device, settings.num_devices) as sampling:
            sample_set = SampleSet(
                settings.num_samples,
                image_shape,
                names,
                _hash_chunks(_sample_chunks(snapshot, settings, sampling), digest),
                lambda: {**manifest, "sha256": digest.hexdigest()},
                card,
            )
            SAMPLE_WRITERS[path.suffix if path.suffix in SAMPLE_WRITERS else ""](path, sample_set)
            return _readback_difference(snapshot, settings, path, names, sampling)

    return write


def _sample_chunks(snapshot: Snapshot, settings: ExportSettings, sampling: SamplingDevices) -> Iterator[SampleChunk]:
    starts = range(0, settings.num_samples, CHUNK_SIZE)
    tasks, tasks_to_send = tee(_sample_task(snapshot, settings, start) for start in starts)
    sha256 = weights_hash(snapshot.generator)
    for start, task, pixels in zip(starts, tasks, sampling.stream(tasks_to_send), strict=True):
        labels = None if task.labels is None else np.array(task.labels, np.int64)
        mark = partial(_mark, sha256, settings, start) if settings.mark else None
        yield SampleChunk(start, pixels.permute(0, 2, 3, 1).contiguous().numpy(), labels, mark, settings.signing)


def _mark(sha256: str, settings: ExportSettings, start: int, index: int) -> Mark:
    """Return the mark of the sample at this place of the chunk from `start` on."""
    truncation = f", truncation {settings.truncation:g}" if settings.truncation != 1 else ""
    label = f", label {settings.label}" if settings.label is not None else ""
    return Mark(sha256, f"seed {settings.seed}, image {settings.first_sample + start + index}{truncation}{label}")


def _sample_task(snapshot: Snapshot, settings: ExportSettings, start: int) -> SampleTask:
    """Return the chunk of samples from `start` on."""
    indices = list(range(start, min(start + CHUNK_SIZE, settings.num_samples)))
    labels = _sample_labels(snapshot, settings, indices)
    return SampleTask(_sample_keys(settings, indices), None if labels is None else labels.tolist(), settings.truncation)


def _hash_chunks(chunks: Iterator[SampleChunk], digest: Any) -> Iterator[SampleChunk]:
    for chunk in chunks:
        digest.update(chunk.pixels.tobytes())
        digest.update(b"" if chunk.labels is None else chunk.labels.astype("<i8").tobytes())
        yield chunk


def _sample_keys(settings: ExportSettings, indices: list[int]) -> list[tuple[int, int]]:
    return [(settings.seed, settings.first_sample + index) for index in indices]


def _sample_labels(snapshot: Snapshot, settings: ExportSettings, indices: list[int]) -> Labels | None:
    if settings.label is None:
        return random_labels(snapshot.spec, _sample_keys(settings, indices))
    labels = torch.full((len(indices),), class_index(settings.label, snapshot.spec))
    validate_labels(labels, len(indices), snapshot.spec.num_classes)
    return labels


def _manifest(snapshot: Snapshot, settings: ExportSettings) -> dict[str, Any]:
    """Return the manifest without the hash of the images."""
    spec, config = snapshot.spec, snapshot.config
    return {
        "description": "images generated by a GAN, none of them real",
        "num_images": settings.num_samples,
        "image_shape": {"height": spec.height, "width": spec.width, "channels": spec.channels},
        "classes": spec.num_classes,
        **({"class_names": list(spec.class_names)} if spec.class_names else {}),
        "seed": settings.seed,
        **({"first_sample": settings.first_sample} if settings.first_sample else {}),
        "truncation": settings.truncation,
        **({"label": settings.label} if settings.label is not None else {}),
        "sampling": " ".join(sampling_instructions(config)),
        "model": {
            "recipe": config.recipe,
            "network": config.generator.network,
            "images_seen": snapshot.images_seen,
            "sha256": weights_hash(snapshot.generator),
        },
        "sha256_scope": f"sha256 is over consecutive chunks of {CHUNK_SIZE:,} images: the pixels of each, "
        "uint8 [N, H, W, C], then its labels, int64, if any",
    }


def _readback_difference(
    snapshot: Snapshot, settings: ExportSettings, path: Path, names: tuple[str, ...], sampling: SamplingDevices
) -> float:
    """Return the largest difference of samples read back, for images in [-1, 1]; infinite for a wrong label."""
    reader = open_reader(str(path))
    indices = (
        np.linspace(0, settings.num_samples - 1, min(settings.num_samples, NUM_VERIFIED)).round().astype(int).tolist()
    )
    labels = _sample_labels(snapshot, settings, indices)
    pixels = sampling.sample(_sample_keys(settings, indices), labels, settings.truncation)
    generated = pixels.permute(0, 2, 3, 1).numpy()
    if len(reader) != settings.num_samples or (labels is None) != (reader.labels is None):
        return float("inf")
    if labels is not None and reader.labels is not None:
        stored_labels = [str(reader.labels[index]) for index in indices]
        if any(
            stored_label not in (names[label], str(label))
            for stored_label, label in zip(stored_labels, labels.tolist(), strict=True)
        ):
            return float("inf")
    return max(_image_difference(reader, number, expected) for number, expected in zip(indices, generated, strict=True))


def _image_difference(reader: Reader, index: int, expected: np.ndarray) -> float:
    stored = reader.read(index)
    try:
        actual = stored if isinstance(stored, np.ndarray) else _decode_png(stored)
    except UnreadableImage as error:
        raise CardiganError(f"Sample {index} {error} when it is read back, so nothing was written.") from error
    actual = actual.reshape(*actual.shape[:2], -1)
    return (
        float(np.abs(actual.astype(float) - expected).max() / 127.5) if actual.shape == expected.shape else float("inf")
    )


def _decode_png(content: bytes) -> np.ndarray:
    with open_image(content, 2**31) as image:
        return np.asarray(image)
