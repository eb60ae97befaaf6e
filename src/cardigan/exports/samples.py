"""samples: a synthetic data set, pictures with their labels and a manifest, drawn and written a part at a time.

Knows how they are drawn and checked; `sample_files.py` knows the files. `cardigan train` reads each of them again.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cardigan.data.decoding import opened
from cardigan.data.formats.opening import open_reader
from cardigan.data.reader import Reader, Unreadable
from cardigan.errors import CardiganError
from cardigan.exports.card import drawing_words, weights_hash
from cardigan.exports.interface import Settings, Writer
from cardigan.exports.sample_files import SAMPLE_FILES, Part, SampleSet
from cardigan.latents import sample_labels
from cardigan.run.snapshot import Snapshot, check_labels, class_number, sample_pixels
from cardigan.shapes import Labels

PART = 1_024
CHECKED = 256
"""So many samples, spread evenly, are read back and compared with what PyTorch draws anew."""


def samples_writer(snapshot: Snapshot, settings: Settings) -> Writer:
    """Return what writes a folder of PNGs, a .zip of them, a .npz or a .parquet, by the path's ending."""
    if snapshot.spec.channels not in (1, 3, 4):
        raise CardiganError(
            f"Pictures of {snapshot.spec.channels} channels make no data set of pictures (those have 1, 3 or 4): draw them with `cardigan sample`."
        )
    _labels(snapshot, settings, [0])  # what cannot be drawn shows before anything is written

    def write(path: Path, card: str) -> float:
        digest = hashlib.sha256()
        names = snapshot.spec.class_names or tuple(map(str, range(snapshot.spec.classes)))
        frame = (snapshot.spec.height, snapshot.spec.width, snapshot.spec.channels)
        facts = _facts(snapshot, settings)
        made = SampleSet(
            settings.num, frame, names, _hashed(_parts(snapshot, settings), digest), lambda: {**facts, "sha256": digest.hexdigest()}, card
        )
        SAMPLE_FILES[path.suffix if path.suffix in SAMPLE_FILES else ""](path, made)
        return _difference(snapshot, settings, path, names)

    return write


def _parts(snapshot: Snapshot, settings: Settings) -> Iterator[Part]:
    for start in range(0, settings.num, PART):
        numbers = list(range(start, min(start + PART, settings.num)))
        labels = _labels(snapshot, settings, numbers)
        pixels = sample_pixels(snapshot, _keys(settings, numbers), labels, settings.truncation)
        yield Part(start, pixels.permute(0, 2, 3, 1).contiguous().numpy(), None if labels is None else labels.numpy())


def _hashed(parts: Iterator[Part], digest: Any) -> Iterator[Part]:
    for part in parts:
        digest.update(part.pixels.tobytes())
        digest.update(b"" if part.labels is None else part.labels.astype("<i8").tobytes())
        yield part


def _keys(settings: Settings, numbers: list[int]) -> list[tuple[int, int]]:
    return [(settings.seed, number) for number in numbers]


def _labels(snapshot: Snapshot, settings: Settings, numbers: list[int]) -> Labels | None:
    classes = snapshot.spec.classes
    if settings.label is None:
        return sample_labels(_keys(settings, numbers), classes) if classes else None
    labels = torch.full((len(numbers),), class_number(settings.label, snapshot.spec))
    check_labels(labels, len(numbers), classes)
    return labels


def _facts(snapshot: Snapshot, settings: Settings) -> dict[str, Any]:
    """Return the manifest, but for the hash of the pictures."""
    spec, config = snapshot.spec, snapshot.config
    return {
        "what": "pictures drawn by a GAN, none of them real",
        "pictures": settings.num,
        "frame": {"height": spec.height, "width": spec.width, "channels": spec.channels},
        "classes": spec.classes,
        **({"class_names": list(spec.class_names)} if spec.class_names else {}),
        "seed": settings.seed,
        "truncation": settings.truncation,
        **({"label": settings.label} if settings.label is not None else {}),
        "drawn": " ".join(drawing_words(config)),
        "model": {
            "recipe": config.recipe,
            "network": config.generator.network,
            "images_seen": snapshot.images_seen,
            "sha256": weights_hash(snapshot.generator),
        },
        "hash": f"sha256 is over parts of {PART:,} pictures in turn: their pixels, uint8 [N, H, W, C], then their labels, int64, if they have any",
    }


def _difference(snapshot: Snapshot, settings: Settings, path: Path, names: tuple[str, ...]) -> float:
    """Return the largest difference between samples read back and drawn anew, of 2 between black and white; infinite for a wrong label."""
    reader = open_reader(str(path))
    numbers = np.linspace(0, settings.num - 1, min(settings.num, CHECKED)).round().astype(int).tolist()
    labels = _labels(snapshot, settings, numbers)
    drawn = sample_pixels(snapshot, _keys(settings, numbers), labels, settings.truncation).permute(0, 2, 3, 1).numpy()
    if len(reader) != settings.num or (labels is None) != (reader.labels is None):
        return float("inf")
    if labels is not None and reader.labels is not None:
        told = [str(reader.labels[number]) for number in numbers]
        if any(word not in (names[label], str(label)) for word, label in zip(told, labels.tolist(), strict=True)):
            return float("inf")
    return max(_apart(reader, number, expected) for number, expected in zip(numbers, drawn, strict=True))


def _apart(reader: Reader, number: int, expected: np.ndarray) -> float:
    stored = reader.read(number)
    try:
        found = stored if isinstance(stored, np.ndarray) else _decoded(stored)
    except Unreadable as error:
        raise CardiganError(f"Sample {number} {error} when it is read back, so nothing was kept.") from error
    found = found.reshape(*found.shape[:2], -1)
    return float(np.abs(found.astype(float) - expected).max() / 127.5) if found.shape == expected.shape else float("inf")


def _decoded(content: bytes) -> np.ndarray:
    with opened(content, 2**31) as image:
        return np.asarray(image)
