"""The cheap verdict at checkpoints: the score that picks the best checkpoint, and what else is seen on the way.

Knows pictures and classes; draws nothing and trains nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from cardigan.config import DataConfig
from cardigan.data.source import ImageSource
from cardigan.metrics.digits import SIDE, digit_classes, digit_features, digit_reference, to_digit_frame
from cardigan.metrics.efficientnet import efficientnet_lite0, installed
from cardigan.metrics.features import CHUNK, coloured, resized
from cardigan.metrics.frechet import Gaussian, fit_gaussian, frechet_with_influence_error
from cardigan.metrics.modes import STACKED_MODES, class_counts, class_divergence, modes_covered, stacked_classes, uniform_counts
from cardigan.metrics.reference import unframed
from cardigan.metrics.statistics import bootstrap_error
from cardigan.pixels import encode
from cardigan.shapes import Pixels

Counts = Int64[Tensor, " class"]
SAMPLES = {"mnist": 2_000, "stacked-mnist": 2_000}
"""Pictures drawn for the score that picks the best checkpoint; few, so that judging stays cheap."""
PICTURES = 1_000
"""The same for other sources, and the most real pictures they are compared with."""
FEWEST = 100
"""Where there are few real pictures, no more are drawn than there are of them, but so many at least."""
SHORT_SIDE = 128
"""Photographs are looked at in this size: a third of the arithmetic of the usual 224, for a score that is only compared with itself."""
THUMBNAIL = 8
"""Where no backbone is installed pictures are compared as thumbnails of this side."""


@dataclass(frozen=True)
class Verdict:
    """How many pictures to draw, and what judges them. A lower `score` is better; `score_error` is its standard error."""

    num_samples: int
    judge: Callable[[Pixels], dict[str, float]]


def quick_verdict(source: ImageSource, data: DataConfig, held_out: ImageSource | None = None) -> Verdict:
    """Return what judges pictures drawn in this frame: digits by digits, others by the source's own held-out pictures, if it has enough, or all."""
    if source.name == "mnist":
        counts = class_counts(source.labels.cpu(), source.classes)
        return Verdict(SAMPLES[source.name], partial(_digits, data=data, expected=counts if bool((counts > 0).all()) else None))
    if source.name == "stacked-mnist":
        return Verdict(SAMPLES[source.name], partial(_stacks, data=data))
    real = held_out if held_out is not None and len(held_out.pixels) >= PICTURES else source
    return Verdict(min(PICTURES, max(FEWEST, len(real))), Pictures(real, data))


@dataclass
class Pictures:
    """Scores pictures by the distance of their features to those of real ones, which are computed when they are first needed."""

    real: ImageSource
    data: DataConfig
    _reference: Gaussian | None = None

    def __call__(self, pixels: Pixels) -> dict[str, float]:
        if self._reference is None:
            places = torch.arange(min(PICTURES, len(self.real)))
            images = self.real.images(places.to(self.real.pixels.device), self.data)
            self._reference = fit_gaussian(quick_features(encode(images).cpu()))
        return _scored(frechet_with_influence_error(quick_features(pixels), self._reference))


def quick_features(pixels: Pixels) -> Float[Tensor, "batch feature"]:
    """Return features of the photograph backbone, of pictures at most 128 pixels high and wide; without its weights, thumbnails."""
    if not installed() or pixels.shape[1] not in (1, 3, 4):
        return adaptive_avg_pool2d(pixels.float() / 255, THUMBNAIL).flatten(1)
    network, _ = efficientnet_lite0()
    with torch.no_grad():
        return torch.cat([network.features((resized(coloured(chunk), SHORT_SIDE, SHORT_SIDE) - 127) / 128) for chunk in pixels.split(CHUNK)])


def _digits(pixels: Pixels, data: DataConfig, expected: Counts | None) -> dict[str, float]:
    """Score digits by their distance to the test digits; beside it, how far their classes are from the data's."""
    features = digit_features(to_digit_frame(pixels, data))
    verdict = _scored(frechet_with_influence_error(features, digit_reference()))
    if expected is not None:  # of a class that the data lacks, pictures would be infinitely far
        verdict["class_divergence"] = round(class_divergence(class_counts(digit_classes(features), len(expected)), expected), 6)
    return verdict


def _stacks(pixels: Pixels, data: DataConfig) -> dict[str, float]:
    """Score stacks by the divergence of their modes from even ones (which so few samples alone raise by about 0.3), and count the modes."""
    counts = class_counts(stacked_classes(unframed(pixels, data, (3, SIDE, SIDE))), STACKED_MODES)
    even = uniform_counts(STACKED_MODES)
    error = bootstrap_error(counts, partial(class_divergence, reference=even), 0)
    return {**_scored((class_divergence(counts, even), error)), "modes_covered": float(modes_covered(counts))}


def _scored(value: tuple[float, float]) -> dict[str, float]:
    return {"score": value[0], "score_error": float(f"{value[1]:.3g}")}
