"""The quick score at checkpoints, which selects the best checkpoint. A lower score is better."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from cardigan.backbones.digit_classifier import SIDE
from cardigan.backbones.efficientnet import EXAMINER, FoldedFeatures, efficientnet, is_installed
from cardigan.config import STACKED_MNIST
from cardigan.config_parts import DataConfig
from cardigan.data.cache import decode_in_memory
from cardigan.data.decoding import decode_spec
from cardigan.data.mnist import load_mnist
from cardigan.data.reader import Reader
from cardigan.data.source import ImageSource
from cardigan.metrics.class_histogram import (
    NUM_STACKED_MODES,
    class_counts,
    class_kl,
    num_covered,
    stacked_modes,
    uniform_counts,
)
from cardigan.metrics.digits import digit_features, digit_reference, predict_digits, to_mnist_shape
from cardigan.metrics.features import CHUNK_SIZE, resize, to_rgb
from cardigan.metrics.frechet import Gaussian, fit_gaussian, frechet_distance, frechet_with_influence_error
from cardigan.metrics.reference import to_reference_shape
from cardigan.metrics.statistics import bootstrap_error
from cardigan.pixels import encode
from cardigan.shapes import Pixels

ClassCounts = Int64[Tensor, " class"]
BUILTIN_NUM_SAMPLES = 2_000
"""Samples for the quick score of built-in sources. A small number keeps it fast."""
NUM_SAMPLES = 1_000
"""Samples for other sources, and the maximum number of real images to compare with."""
MIN_SAMPLES = 100
"""Minimum samples if there are fewer real images than `NUM_SAMPLES`."""
FEATURE_SIDE = 128
"""Input side of EfficientNet-Lite0. It takes a third of the arithmetic of the usual 224."""
THUMBNAIL_SIDE = 8
"""Side of the thumbnails that are compared if no backbone is installed."""


@dataclass(frozen=True)
class QuickScorer:
    """A number of samples and the function that scores them.

    `score` returns at least `score`, for which lower is better, and `score_standard_error`.
    """

    num_samples: int
    score: Callable[[Pixels], dict[str, float]]
    features: Callable[[Pixels], Tensor]
    """Returns the features that are scored, which take nearly all of the time."""


def quick_scorer(source: ImageSource, data: DataConfig, holdout: ImageSource | None = None) -> QuickScorer:
    """Return the quick scorer for images in this shape.

    Digits are compared with the test digits. Other images are compared with the holdout if it is large enough,
    otherwise with the training images.
    """
    if source.name == "mnist":
        digits = load_mnist("test") if data.clusters else source
        counts = class_counts(digits.labels.cpu(), digits.num_classes)
        return QuickScorer(
            BUILTIN_NUM_SAMPLES,
            partial(_score_digits, data=data, expected=counts if bool((counts > 0).all()) else None),
            lambda pixels: digit_features(to_mnist_shape(pixels, data)),
        )
    if source.name == STACKED_MNIST:
        return QuickScorer(
            BUILTIN_NUM_SAMPLES,
            partial(_score_stacked, data=data),
            lambda pixels: stacked_modes(to_reference_shape(pixels, data, (3, SIDE, SIDE))),
        )
    real = holdout if holdout is not None and len(holdout.pixels) >= NUM_SAMPLES else source
    return QuickScorer(min(NUM_SAMPLES, max(MIN_SAMPLES, len(real))), FeatureDistance(real, data), quick_features)


@dataclass
class FeatureDistance:
    """Score images by the Frechet distance of their features to those of real images, computed on first use."""

    real: ImageSource
    data: DataConfig
    _reference: Gaussian | None = None

    def __call__(self, pixels: Pixels) -> dict[str, float]:
        if self._reference is None:
            indices = torch.arange(min(NUM_SAMPLES, len(self.real)))
            images = self.real.images_at(indices.to(self.real.pixels.device), self.data)
            self._reference = fit_gaussian(quick_features(encode(images).cpu()))
        return _score_values(frechet_with_influence_error(quick_features(pixels), self._reference))


def quick_features(pixels: Pixels) -> Float[Tensor, "batch feature"]:
    """Return EfficientNet-Lite2 features at 128x128, or thumbnails if its weights are not installed."""
    if not is_installed(EXAMINER) or pixels.shape[1] not in (1, 3, 4):
        return adaptive_avg_pool2d(pixels.float() / 255, THUMBNAIL_SIDE).flatten(1)
    features = FoldedFeatures(efficientnet(EXAMINER))
    with torch.no_grad():
        return torch.cat(
            [
                features((resize(to_rgb(chunk), FEATURE_SIDE, FEATURE_SIDE) - 127) / 128)
                for chunk in pixels.split(CHUNK_SIZE)
            ]
        )


def _score_digits(pixels: Pixels, data: DataConfig, expected: ClassCounts | None) -> dict[str, float]:
    """Return the Frechet distance to the test digits, and the KL divergence of the classes from the data's."""
    features = digit_features(to_mnist_shape(pixels, data))
    values = _score_values(frechet_with_influence_error(features, digit_reference()))
    if expected is not None:  # the KL divergence is infinite for a class that the data lacks
        values["class_kl"] = round(class_kl(class_counts(predict_digits(features), len(expected)), expected), 6)
    return values


def _score_stacked(pixels: Pixels, data: DataConfig) -> dict[str, float]:
    """Return the KL divergence of the modes from uniform, and the modes covered.

    The small sample alone adds about 0.3 to the divergence.
    """
    counts = class_counts(stacked_modes(to_reference_shape(pixels, data, (3, SIDE, SIDE))), NUM_STACKED_MODES)
    uniform = uniform_counts(NUM_STACKED_MODES)
    error = bootstrap_error(counts, partial(class_kl, reference=uniform), 0)
    return {**_score_values((class_kl(counts, uniform), error)), "modes_covered": float(num_covered(counts))}


def _score_values(value: tuple[float, float]) -> dict[str, float]:
    return {"score": value[0], "score_standard_error": float(f"{value[1]:.3g}")}


MAX_IMAGES = 500
"""Maximum images per side. Enough to rank models in seconds."""


def quick_distance(reader: Reader, data: DataConfig, draw: Callable[[int], Pixels]) -> float:
    """Return the Frechet distance over quick features between given images and as many generated ones, at most 500.

    Given images are resized as `data` describes. Raises CardiganError for fewer than two.
    """
    real = decode_in_memory(
        reader, decode_spec(data), data.num_workers, entries=range(min(MAX_IMAGES, len(reader)))
    ).pixels
    return frechet_distance(
        fit_gaussian(quick_features(torch.as_tensor(draw(len(real))))), fit_gaussian(quick_features(real))
    )
