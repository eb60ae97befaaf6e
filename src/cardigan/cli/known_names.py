"""The names in tables that plug-ins extend, for options and their help.

Imports no table: if a plug-in has added a line, the table's module is imported already, and if not, the built-in names
are all there are.
"""

import sys
from collections.abc import Sequence

METRICS = (
    *("frechet", "kernel", "sliced_wasserstein", "checkerboard", "prdc", "classes", "classifier_score"),
    *("nn_error", "variety", "memorization", "parzen", "stacked_mnist"),
)
EXTRACTORS = (
    *("digits", "pixels", "efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2"),
    *("inception", "dinov2"),
)
EXPORT_FORMATS = ("safetensors", "onnx", "pt2", "html", "samples")
TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")
PENALTIES = ("r1", "r2", "wgan_gp", "dragan")
NETWORK_OPTIONS: dict[str, dict[str, bool | int | float | str]] = {
    "generator": {"upsampling": "transposed", "attention_resolution": 0, "skip": 3},
    "discriminator": {"attention_resolution": 0, "backbone": "efficientnet-lite0", "head_width": 128, "image_width": 0},
}
"""The options of all networks of a role with their defaults."""


def known_metrics() -> Sequence[str]:
    module = sys.modules.get("cardigan.metrics.table")
    return METRICS if module is None else tuple(module.METRICS)


def known_extractors() -> Sequence[str]:
    module = sys.modules.get("cardigan.metrics.features")
    return EXTRACTORS if module is None else tuple(module.EXTRACTORS)


def known_export_formats() -> Sequence[str]:
    module = sys.modules.get("cardigan.exports.table")
    return EXPORT_FORMATS if module is None else tuple(module.FORMATS)


def known_trackers() -> Sequence[str]:
    module = sys.modules.get("cardigan.trackers.table")
    return TRACKERS if module is None else tuple(module.TRACKERS)


def known_penalties() -> Sequence[str]:
    module = sys.modules.get("cardigan.objective.penalties")
    return PENALTIES if module is None else tuple(module.PENALTIES)


def known_network_options(role: str) -> dict[str, bool | int | float | str]:
    """Return the options of all networks of a role (generator, discriminator) with their defaults."""
    module = sys.modules.get("cardigan.nets.table")
    if module is None:
        return dict(NETWORK_OPTIONS[role])
    return {
        name: value
        for architecture in module.NETS.values()
        for name, value in architecture.default_options(role).items()
    }


def one_of(names: Sequence[str]) -> str:
    """Return "a, b or c"."""
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else "".join(names)
