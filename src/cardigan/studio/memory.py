"""The training pictures nearest to a generated one.

Opens only pictures that are at hand: embedded digits, and sources that are kept decoded on this machine.
"""

from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from cardigan.config import DataConfig
from cardigan.data.decoding import frame_of
from cardigan.data.pictures import EMBEDDED, open_pictures, placed, reader_of
from cardigan.data.prepared import is_kept
from cardigan.data.sharded.shards import is_shards
from cardigan.data.source import ImageSource
from cardigan.errors import CardiganError
from cardigan.pixels import encode
from cardigan.run.directory import RunDirectory, changed, remembered
from cardigan.shapes import Pixels

CHUNK = 512
Pictures = UInt8[Tensor, "_ _ _ _"]
"""Stored pictures whose count is not that of the ones given."""
NOT_KEPT = (
    "The training pictures of this run are not at hand: they are shown where they are embedded digits, or kept decoded on this machine "
    "(data.keep) and unchanged."
)


def at_hand(data: DataConfig) -> bool:
    """Return whether the training pictures can be shown without decoding, downloading or searching anything."""
    if data.source in EMBEDDED:
        return True
    local = "://" not in data.source and data.source == placed(data.source) and Path(data.source).exists()
    if not local or data.keep == "stream" or is_shards(data.source):
        return False
    try:
        reader = reader_of(data)
        return not reader.passing and is_kept(reader, frame_of(data))
    except (CardiganError, OSError):
        return False


def training_pictures(run: RunDirectory, data: DataConfig) -> ImageSource:
    """Return what the run was trained on; raises CardiganError where it is not at hand, or has changed since."""
    if not at_hand(data):
        raise CardiganError(NOT_KEPT)
    found = open_pictures(data)
    before = remembered(run)
    if before and found.facts and changed({**before, "how": found.facts["how"]}, found.facts):
        raise CardiganError(NOT_KEPT)
    return found.training


def nearest_pictures(source: ImageSource, data: DataConfig, picture: Pixels, count: int) -> Pictures:
    """Return the `count` pictures of the source that are nearest to one [1, c, h, w], the nearest first, by Euclidean distance of the pixels."""
    distances = [
        (encode(source.images(torch.arange(start, min(start + CHUNK, len(source))), data)).float() - picture.float()).square().sum(dim=(1, 2, 3))
        for start in range(0, len(source), CHUNK)
    ]
    places = torch.cat(distances).topk(min(count, len(source)), largest=False).indices
    return encode(source.images(places, data))
