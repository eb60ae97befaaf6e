"""The training images nearest to a generated one.

Works for built-in datasets and for sources that are cached decoded on this machine.
"""

from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from cardigan.config import DataConfig
from cardigan.data.builtin import BUILTIN_DATASETS
from cardigan.data.cache import is_cached
from cardigan.data.datasets import open_datasets, reader_from_config
from cardigan.data.decoding import decode_spec
from cardigan.data.source import ImageSource
from cardigan.data.source_names import absolute_source
from cardigan.data.webdataset.shards import is_shards
from cardigan.errors import CardiganError
from cardigan.pixels import encode
from cardigan.run.directory import RunDirectory, source_changes, source_fingerprint
from cardigan.shapes import Pixels

CHUNK_SIZE = 512
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
    is_local = "://" not in data.source and data.source == absolute_source(data.source) and Path(data.source).exists()
    if not is_local or data.cache == "none" or is_shards(data.source):
        return False
    try:
        reader = reader_from_config(data)
        return not reader.no_cache and is_cached(reader, decode_spec(data))
    except (CardiganError, OSError):
        return False


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
