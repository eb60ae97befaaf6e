"""What happens when a number stops being one: the update was refused (`steps.py`), nothing is saved, the run stops with one sentence.

Looked at after every step where that is free, on a GPU every few seconds: until then its kernels refuse by themselves.
"""

import math
from collections.abc import Mapping

from cardigan.errors import CollectiveError
from cardigan.training.steps import STEP_METRICS, StepMetrics


def nonfinite_values(values: Mapping[str, float]) -> dict[str, float]:
    """Return those of the numbers that are infinite or undefined."""
    return {name: value for name, value in values.items() if not math.isfinite(value)}


def nonfinite_metrics(metrics: StepMetrics) -> dict[str, float]:
    """Return what is not finite of one step, if looking at it makes nobody wait; on a GPU, nothing."""
    if metrics.is_cuda or bool(metrics.isfinite().all()):
        return {}
    return nonfinite_values(dict(zip(STEP_METRICS, metrics.tolist(), strict=True)))


def nonfinite_error(images_seen: int, nonfinite: Mapping[str, float]) -> CollectiveError:
    """Return the error a run ends with; every process meets it at the same step, since gradients are shared."""
    return CollectiveError(
        f"Training broke before {images_seen:,} images: {', '.join(nonfinite)} is not a finite number. That update was not applied and nothing of it "
        "was saved; the checkpoints are from before. Lower the learning rates, or use --precision fp32; the same command with --resume goes on."
    )
