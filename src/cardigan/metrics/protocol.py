"""What a judgement says: numbers, their errors, what real pictures score, and how all of it was measured.

Plain values; computes nothing, imports nothing heavy.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

HIGHER_IS_BETTER = frozenset({"precision", "recall", "density", "coverage", "classes_covered", "classifier_score", "inception_score", "parzen_log_likelihood",
                    "authenticity", "modes_covered"})  # fmt: skip
"""Numbers of which more is better; of `nearest_train_distance` and the numbers not known here neither is, of all others less."""
NO_DIRECTION = frozenset({"nearest_train_distance"})


@dataclass(frozen=True)
class Protocol:
    """Everything that must be equal for two numbers to be comparable."""

    num_samples: int
    seed: int
    """Which samples: sample i of a seed is always the same picture."""
    reference: str
    reference_split: str
    """The real pictures that distances are measured to."""
    num_reference: int
    reference_sha256: str
    """SHA-256 of their pixels and labels."""
    extractor: str
    extractor_sha256: str
    """SHA-256 of its weights; empty if it has none."""
    extractor_resize: str
    image_resize: str
    """How generated pictures were brought to the frame of the real ones."""
    cardigan_version: str
    """Of cardigan."""
    truncation: float = 1.0
    """How far the latents were drawn toward their mean: 1 is not at all."""


@dataclass(frozen=True)
class MetricValue:
    """One number."""

    value: float
    standard_error: float
    error_method: str
    """What the standard error is over: blocks of samples, samples, real pictures, subsets, redrawn counts."""
    num_samples: int
    num_reference: int
    real_baseline: float | None = None
    """What as many real pictures score in the generated ones' place: no generator is expected to do better."""
    real_baseline_error: float | None = None

    @property
    def text(self) -> str:
        return format_with_error(self.value, self.standard_error)

    @property
    def baseline_text(self) -> str:
        return (
            ""
            if self.real_baseline is None or self.real_baseline_error is None
            else format_with_error(self.real_baseline, self.real_baseline_error)
        )


@dataclass(frozen=True)
class Report:
    """The judgement of one model."""

    metrics: dict[str, MetricValue]
    unavailable: dict[str, str]
    """Why a number is not there; it is never zero instead."""
    protocol: Protocol
    images_seen: int | None = None
    class_frequencies: list[float] = field(default_factory=list)
    """How the samples are spread over the classes, as the extractor's classifier sees them."""
    worst: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """`memorized`: (sample, training picture); `duplicates`: (sample, sample). The worst first."""
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def direction(name: str) -> Literal["higher", "lower", "neither"]:
    """Return which way a number improves."""
    return "higher" if name in HIGHER_IS_BETTER else "neither" if name in NO_DIRECTION else "lower"


def differs_significantly(first: MetricValue, second: MetricValue) -> bool:
    """Return whether two numbers differ by more than twice the error of their difference, as one pair in twenty equal ones does by chance."""
    return abs(first.value - second.value) > 2 * (first.standard_error**2 + second.standard_error**2) ** 0.5


def format_with_error(value: float, error: float) -> str:
    """Return a number and its error, both to the error's second digit."""
    digits = max(0, min(6, 1 - _exponent(error))) if error > 1e-9 else 3 if value % 1 else 0
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _exponent(value: float) -> int:
    """Return the power of ten of the first digit."""
    return int(f"{value:e}".partition("e")[2])
