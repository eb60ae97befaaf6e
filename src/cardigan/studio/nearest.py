"""The training images nearest to a generated one.

Works for built-in datasets and for sources that are cached decoded on this machine.
"""

import stat
import threading
from collections.abc import Callable
from pathlib import Path
from zipfile import BadZipFile

import torch
from jaxtyping import UInt8
from torch import Tensor

from cardigan.config_parts import DataConfig
from cardigan.data.builtin import BUILTIN_DATASETS
from cardigan.data.cache import is_cached
from cardigan.data.datasets import open_datasets, reader_from_config
from cardigan.data.decoding import decode_spec
from cardigan.data.formats.numpy_files import unpacked_bytes
from cardigan.data.source import ImageSource
from cardigan.data.source_names import absolute_source
from cardigan.data.webdataset.shards import is_shards
from cardigan.errors import CardiganError
from cardigan.pixels import encode
from cardigan.run.directory import RunDirectory, source_changes, source_fingerprint
from cardigan.shapes import Pixels

CHUNK_SIZE = 512
OPEN_SECONDS = 10.0
"""How long the training images of a run may take to open. A run's config may name any file, or a slow disk."""
MAX_UNPACKED_BYTES, MAX_COMPRESSION = 1 << 29, 20
"""A NumPy archive is not opened if it unpacks to more bytes than the first, and to more times its size than the
second."""
StoredImages = UInt8[Tensor, "_ _ _ _"]
"""Stored images; jaxtyping does not bind their count to that of other arguments."""
UNAVAILABLE_MESSAGE = (
    "The training images of this run are not available: this needs a built-in dataset, or an unchanged source that is "
    "cached decoded on this machine (data.cache)."
)


def has_training_images(data: DataConfig) -> bool:
    """Return whether the training images are available without decoding or downloading."""
    if data.source in BUILTIN_DATASETS:
        return True
    if data.cache == "none" or not _is_file_or_folder(data.source) or is_shards(data.source) or _is_bomb(data.source):
        return False
    return _within_seconds(lambda: _is_cached_source(data)) or False


def _is_file_or_folder(path: str) -> bool:
    """Return whether an absolute path names a regular file or a folder: opening anything else might block."""
    try:
        mode = Path(path).stat().st_mode if path == absolute_source(path) else 0
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _is_bomb(path: str) -> bool:
    """Return whether a NumPy archive unpacks to far more than its size: a run from elsewhere may name any file."""
    try:
        return path.endswith(".npz") and unpacked_bytes(Path(path)) > max(
            MAX_UNPACKED_BYTES, MAX_COMPRESSION * Path(path).stat().st_size
        )
    except (OSError, BadZipFile):
        return False  # the reader reports it


def _is_cached_source(data: DataConfig) -> bool:
    try:
        reader = reader_from_config(data)
        return not reader.no_cache and is_cached(reader, decode_spec(data))
    except (CardiganError, OSError):
        return False


_opening = threading.Lock()
"""Held while a source is opened, so that at most one slow source occupies a thread."""


def _within_seconds(function: Callable[[], bool]) -> bool | None:
    """Return a function's result, or None if it takes more than OPEN_SECONDS or an earlier call has not returned."""
    results: list[bool] = []

    def call() -> None:
        try:
            results.append(function())
        finally:
            _opening.release()

    if not _opening.acquire(blocking=False):
        return None
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(OPEN_SECONDS)
    return results[0] if results else None


def open_training_images(run: RunDirectory, data: DataConfig) -> ImageSource:
    """Return the run's training images. Raises CardiganError if they are unavailable or have changed."""
    if not has_training_images(data):
        raise CardiganError(UNAVAILABLE_MESSAGE)
    datasets = open_datasets(data)
    recorded_fingerprint = source_fingerprint(run)
    if (
        recorded_fingerprint
        and datasets.source_fingerprint
        and source_changes(
            {**recorded_fingerprint, "storage": datasets.source_fingerprint["storage"]}, datasets.source_fingerprint
        )
    ):
        raise CardiganError(UNAVAILABLE_MESSAGE)
    return datasets.train


def nearest_images(source: ImageSource, data: DataConfig, image: Pixels, count: int) -> StoredImages:
    """Return the `count` images nearest to one of shape [1, c, h, w], by Euclidean pixel distance, nearest first."""
    distances = [
        (
            encode(source.images_at(torch.arange(start, min(start + CHUNK_SIZE, len(source))), data)).float()
            - image.float()
        )
        .square()
        .sum(dim=(1, 2, 3))
        for start in range(0, len(source), CHUNK_SIZE)
    ]
    indices = torch.cat(distances).topk(min(count, len(source)), largest=False).indices
    return encode(source.images_at(indices, data))
