"""samples: a synthetic data set, pictures with their labels and a manifest, drawn and written a part at a time.

Knows how they are drawn and checked; `sample_files.py` knows the files. `cardigan train` reads each of them again.
"""

import hashlib
from collections.abc import Iterator
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
from cardigan.latents.sampling import sample_labels
from cardigan.models.sampling import class_index, sample_pixels, validate_labels
from cardigan.models.snapshot import Snapshot
from cardigan.shapes import Labels

CHUNK_SIZE = 1_024
NUM_VERIFIED = 256
"""So many samples, spread evenly, are read back and compared with what PyTorch draws anew."""


def samples_writer(snapshot: Snapshot, settings: ExportSettings) -> WriteFn:
    """Return what writes a folder of PNGs, a .zip of them, a .npz or a .parquet, by the path's ending."""
    if snapshot.spec.channels not in (1, 3, 4):
        raise CardiganError(
            f"Pictures of {snapshot.spec.channels} channels make no data set of pictures (those have 1, 3 or 4): draw them with `cardigan sample`."
        )
    _sample_labels(snapshot, settings, [0])  # what cannot be drawn shows before anything is written

    def write(path: Path, card: str) -> float:
        digest = hashlib.sha256()
        names = snapshot.spec.class_names or tuple(map(str, range(snapshot.spec.num_classes)))
        image_shape = (snapshot.spec.height, snapshot.spec.width, snapshot.spec.channels)
        manifest = _manifest(snapshot, settings)
        sample_set = SampleSet(
            settings.num_samples,
            image_shape,
            names,
            _hash_chunks(_sample_chunks(snapshot, settings), digest),
            lambda: {**manifest, "sha256": digest.hexdigest()},
            card,
        )
        SAMPLE_WRITERS[path.suffix if path.suffix in SAMPLE_WRITERS else ""](path, sample_set)
        return _readback_difference(snapshot, settings, path, names)

    return write


def _sample_chunks(snapshot: Snapshot, settings: ExportSettings) -> Iterator[SampleChunk]:
    for start in range(0, settings.num_samples, CHUNK_SIZE):
        indices = list(range(start, min(start + CHUNK_SIZE, settings.num_samples)))
        labels = _sample_labels(snapshot, settings, indices)
        pixels = sample_pixels(snapshot, _sample_keys(settings, indices), labels, settings.truncation)
        yield SampleChunk(
            start, pixels.permute(0, 2, 3, 1).contiguous().numpy(), None if labels is None else labels.numpy()
        )


def _hash_chunks(chunks: Iterator[SampleChunk], digest: Any) -> Iterator[SampleChunk]:
    for chunk in chunks:
        digest.update(chunk.pixels.tobytes())
        digest.update(b"" if chunk.labels is None else chunk.labels.astype("<i8").tobytes())
        yield chunk


def _sample_keys(settings: ExportSettings, indices: list[int]) -> list[tuple[int, int]]:
    return [(settings.seed, index) for index in indices]


def _sample_labels(snapshot: Snapshot, settings: ExportSettings, indices: list[int]) -> Labels | None:
    classes = snapshot.spec.num_classes
    if settings.label is None:
        return sample_labels(_sample_keys(settings, indices), classes) if classes else None
    labels = torch.full((len(indices),), class_index(settings.label, snapshot.spec))
    validate_labels(labels, len(indices), classes)
    return labels


def _manifest(snapshot: Snapshot, settings: ExportSettings) -> dict[str, Any]:
    """Return the manifest, but for the hash of the pictures."""
    spec, config = snapshot.spec, snapshot.config
    return {
        "description": "pictures drawn by a GAN, none of them real",
        "num_images": settings.num_samples,
        "image_shape": {"height": spec.height, "width": spec.width, "channels": spec.channels},
        "classes": spec.num_classes,
        **({"class_names": list(spec.class_names)} if spec.class_names else {}),
        "seed": settings.seed,
        "truncation": settings.truncation,
        **({"label": settings.label} if settings.label is not None else {}),
        "sampling": " ".join(sampling_instructions(config)),
        "model": {
            "recipe": config.recipe,
            "network": config.generator.network,
            "images_seen": snapshot.images_seen,
            "sha256": weights_hash(snapshot.generator),
        },
        "sha256_scope": f"sha256 is over parts of {CHUNK_SIZE:,} pictures in turn: their pixels, uint8 [N, H, W, C], then their labels, int64, if they have any",
    }


def _readback_difference(snapshot: Snapshot, settings: ExportSettings, path: Path, names: tuple[str, ...]) -> float:
    """Return the largest difference between samples read back and drawn anew, of 2 between black and white; infinite for a wrong label."""
    reader = open_reader(str(path))
    indices = (
        np.linspace(0, settings.num_samples - 1, min(settings.num_samples, NUM_VERIFIED)).round().astype(int).tolist()
    )
    labels = _sample_labels(snapshot, settings, indices)
    generated = (
        sample_pixels(snapshot, _sample_keys(settings, indices), labels, settings.truncation)
        .permute(0, 2, 3, 1)
        .numpy()
    )
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
        raise CardiganError(f"Sample {index} {error} when it is read back, so nothing was kept.") from error
    actual = actual.reshape(*actual.shape[:2], -1)
    return (
        float(np.abs(actual.astype(float) - expected).max() / 127.5) if actual.shape == expected.shape else float("inf")
    )


def _decode_png(content: bytes) -> np.ndarray:
    with open_image(content, 2**31) as image:
        return np.asarray(image)
