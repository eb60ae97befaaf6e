"""Metrics of generated images. Independent of training."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cardigan.metrics.evaluate import generator_sampler
    from cardigan.metrics.features import EXTRACTORS, ExtractorBuilder, FeatureExtractor
    from cardigan.metrics.inputs import MetricInputs
    from cardigan.metrics.protocol import Report
    from cardigan.metrics.reference import Reference, Sampler, array_sampler
    from cardigan.metrics.reference_loader import load_reference
    from cardigan.metrics.statistics import jackknife, mean_with_error
    from cardigan.metrics.table import METRICS, MetricGroup

__all__ = [
    "EXTRACTORS",
    "METRICS",
    "ExtractorBuilder",
    "FeatureExtractor",
    "MetricGroup",
    "MetricInputs",
    "Reference",
    "Report",
    "Sampler",
    "array_sampler",
    "generator_sampler",
    "jackknife",
    "load_reference",
    "mean_with_error",
]

MODULES = {
    "generator_sampler": "evaluate",
    "EXTRACTORS": "features",
    "ExtractorBuilder": "features",
    "FeatureExtractor": "features",
    "MetricInputs": "inputs",
    "Report": "protocol",
    "Reference": "reference",
    "Sampler": "reference",
    "array_sampler": "reference",
    "load_reference": "reference_loader",
    "jackknife": "statistics",
    "mean_with_error": "statistics",
    "METRICS": "table",
    "MetricGroup": "table",
}
"""The module of each public name, which is imported on first use."""


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
