"""Metrics of generated images. Independent of training."""

from typing import TYPE_CHECKING

from cardigan.public_names import import_on_first_use

if TYPE_CHECKING:
    from cardigan.metrics.evaluate import generator_sampler
    from cardigan.metrics.features import EXTRACTORS, ExtractorBuilder, FeatureExtractor, find_extractor
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
    "find_extractor",
    "generator_sampler",
    "jackknife",
    "load_reference",
    "mean_with_error",
]

__getattr__, __dir__ = import_on_first_use(
    __name__,
    {
        "generator_sampler": "evaluate",
        "EXTRACTORS": "features",
        "ExtractorBuilder": "features",
        "FeatureExtractor": "features",
        "find_extractor": "features",
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
    },
)
