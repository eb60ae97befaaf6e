"""Non-finite losses and gradients: the update is skipped (`steps.py`), nothing is saved and the run stops.

On a CPU this is checked after every step. On a GPU it is checked every few seconds; until then the optimizer's kernels
skip such updates.
"""

import math
from collections.abc import Mapping

from cardigan.config_parts import ObjectiveConfig
from cardigan.errors import CollectiveError
from cardigan.training.step_types import StepMetrics, metric_names


def nonfinite_values(values: Mapping[str, float]) -> dict[str, float]:
    """Return the values that are infinite or NaN."""
    return {name: value for name, value in values.items() if not math.isfinite(value)}


def nonfinite_metrics(metrics: StepMetrics, objective: ObjectiveConfig) -> dict[str, float]:
    """Return the non-finite metrics of one step. On a GPU return nothing, since reading a value would wait."""
    if metrics.is_cuda or bool(metrics.isfinite().all()):
        return {}
    return nonfinite_values(dict(zip(metric_names(objective), metrics.tolist(), strict=True)))


def nonfinite_error(images_seen: int, nonfinite: Mapping[str, float]) -> CollectiveError:
    """Return the error that ends the run. Every process raises it at the same step, since gradients are averaged."""
    return CollectiveError(
        f"Training failed before {images_seen:,} images: {', '.join(nonfinite)} is not a finite number. The update was "
        "not applied or saved; all checkpoints are from before it. Lower the learning rates, or use --precision fp32, "
        "and continue with --resume."
    )
