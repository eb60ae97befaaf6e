"""The cheap verdict at checkpoints, for each source that has one: the score that picks the best checkpoint, and what else is seen on the way.

Knows pictures and classes; draws nothing and trains nothing.
"""

from collections.abc import Callable
from functools import partial

from jaxtyping import Int64
from torch import Tensor

from cardigan.config import DataConfig
from cardigan.data.source import ImageSource
from cardigan.metrics.digits import SIDE, digit_classes, digit_distance, digit_features, to_digit_frame
from cardigan.metrics.modes import STACKED_MODES, class_counts, class_divergence, modes_covered, stacked_classes, uniform_counts
from cardigan.metrics.reference import unframed
from cardigan.shapes import Pixels

Counts = Int64[Tensor, " class"]
Verdict = Callable[[Pixels], dict[str, float]]


def quick_verdict(source: ImageSource, data: DataConfig) -> Verdict | None:
    """Return what judges pictures drawn in this frame, None for a source that nothing here can judge. A lower `score` is better."""
    if source.name == "mnist":
        counts = class_counts(source.labels.cpu(), source.classes)
        return partial(_digits, data=data, expected=counts if bool((counts > 0).all()) else None)
    return partial(_stacks, data=data) if source.name == "stacked-mnist" else None


def _digits(pixels: Pixels, data: DataConfig, expected: Counts | None) -> dict[str, float]:
    """Score digits by their distance to the test digits; beside it, how far their classes are from the data's."""
    features = digit_features(to_digit_frame(pixels, data))
    verdict = {"score": digit_distance(features)}
    if expected is not None:  # of a class that the data lacks, pictures would be infinitely far
        verdict["class_divergence"] = round(class_divergence(class_counts(digit_classes(features), len(expected)), expected), 6)
    return verdict


def _stacks(pixels: Pixels, data: DataConfig) -> dict[str, float]:
    """Score stacks by the divergence of their modes from even ones (which so few samples alone raise by about 0.3), and count the modes."""
    counts = class_counts(stacked_classes(unframed(pixels, data, (3, SIDE, SIDE))), STACKED_MODES)
    return {"score": class_divergence(counts, uniform_counts(STACKED_MODES)), "modes_covered": float(modes_covered(counts))}
