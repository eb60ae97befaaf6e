"""How far drawn pictures are from given ones, quickly: one number to compare fits by. Knows neither models nor estimators."""

from collections.abc import Callable

import torch

from cardigan.config import DataConfig
from cardigan.data.cache import decode_in_memory
from cardigan.data.decoding import decode_spec
from cardigan.data.reader import Reader
from cardigan.metrics.frechet import fit_gaussian, frechet_distance
from cardigan.metrics.quick import quick_features
from cardigan.shapes import Pixels

MAX_IMAGES = 500
"""Pictures of each kind: enough to order fits, in seconds."""


def quick_distance(reader: Reader, data: DataConfig, draw: Callable[[int], Pixels]) -> float:
    """Return the Frechet distance of as many drawn pictures as there are given ones, the first 500 at most, over quick features.

    Given pictures are brought into the frame `data` describes. Raises CardiganError for fewer than two.
    """
    real = decode_in_memory(
        reader, decode_spec(data), data.num_workers, entries=range(min(MAX_IMAGES, len(reader)))
    ).pixels
    return frechet_distance(
        fit_gaussian(quick_features(torch.as_tensor(draw(len(real))))), fit_gaussian(quick_features(real))
    )
