"""Metrics of generated images. Independent of training."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cardigan.metrics.evaluate import generator_sampler
    from cardigan.metrics.measures import METRICS
    from cardigan.metrics.protocol import Report
    from cardigan.metrics.reference import Reference, Sampler, array_sampler
    from cardigan.metrics.reference_loader import load_reference

__all__ = ["METRICS", "Reference", "Report", "Sampler", "array_sampler", "generator_sampler", "load_reference"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cardigan.metrics import evaluate, measures, protocol, reference, reference_loader

    return {**vars(evaluate), **vars(measures), **vars(protocol), **vars(reference), **vars(reference_loader)}[name]


def __dir__() -> list[str]:
    return sorted(__all__)
