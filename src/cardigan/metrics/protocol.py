"""Result types of an evaluation: metrics, standard errors, real baselines and the protocol.

This module computes nothing and imports no heavy packages.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Direction: TypeAlias = Literal["higher", "lower", "neither"]
"""In which direction a metric improves."""


@dataclass(frozen=True)
class Protocol:
    """Everything that must be equal for two results to be comparable."""

    num_samples: int
    seed: int
    """Sample i of a seed is always the same image."""
    reference: str
    reference_split: str
    """Split of the real images that metrics compare with."""
    num_reference: int
    reference_sha256: str
    """SHA-256 of their pixels and labels."""
    extractor: str
    extractor_sha256: str
    """SHA-256 of its weights. Empty if it has none."""
    extractor_resize: str
    image_resize: str
    """How generated images were resized to the reference's shape."""
    cardigan_version: str
    truncation: float = 1.0
    """Factor on the latents. 1 disables truncation."""


@dataclass(frozen=True)
class MetricValue:
    """The value of one metric."""

    value: float
    standard_error: float | None
    """None if it is not known."""
    error_method: str
    """How the standard error is estimated, e.g. jackknife over samples or bootstrap of class counts."""
    num_samples: int
    num_reference: int
    real_baseline: float | None = None
    """Score of as many real images as there are samples, or of all. No generator is expected to do better."""
    real_baseline_error: float | None = None
    real_baseline_samples: int | None = None
    """Number of real images in `real_baseline`, where it is smaller than the number of samples."""
    better: Direction = "lower"

    @property
    def text(self) -> str:
        return format_with_error(self.value, self.standard_error)

    @property
    def baseline_text(self) -> str:
        if self.real_baseline is None:
            return ""
        return baseline_text(self.real_baseline, self.real_baseline_error, self.real_baseline_samples)


@dataclass(frozen=True)
class Report:
    """The evaluation of one model."""

    metrics: dict[str, MetricValue]
    unavailable: dict[str, str]
    """The reason for each metric that could not be computed."""
    protocol: Protocol
    images_seen: int | None = None
    class_frequencies: list[float] = field(default_factory=list)
    """Frequency of each class among the samples, according to the extractor's classifier."""
    worst: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """Index pairs, the worst first. `memorized`: (sample, training image); `duplicates`: (sample, sample)."""
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def differs_significantly(first: MetricValue, second: MetricValue) -> bool:
    """Return whether two values differ by more than twice the standard error of their difference.

    One in twenty pairs of equal distributions does so at random. False if a standard error is not known.
    """
    if first.standard_error is None or second.standard_error is None:
        return False
    return abs(first.value - second.value) > 2 * (first.standard_error**2 + second.standard_error**2) ** 0.5


def format_with_error(value: float, error: float | None) -> str:
    """Return a value and its standard error, both rounded to the error's second digit; without one, four digits."""
    if error is None:
        return f"{value:.4g}"
    digits = max(0, min(6, 1 - _exponent(error))) if error > 1e-9 else 3 if value % 1 else 0
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def baseline_text(value: float, error: float | None, num_samples: int | None) -> str:
    """Return a real baseline as text, with the number of real images if it is not that of the samples."""
    return format_with_error(value, error) + ("" if num_samples is None else f" ({num_samples:,} images)")


def _exponent(value: float) -> int:
    """Return the decimal exponent of the first digit."""
    return int(f"{value:e}".partition("e")[2])
