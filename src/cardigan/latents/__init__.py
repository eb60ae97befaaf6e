"""Latents: distributions, seeds, points and interpolations."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cardigan.latents.interpolation import interpolate, point_latents, walk_latents
    from cardigan.latents.sampling import LATENTS, LatentFn, sample_latents, training_latents

__all__ = ["LATENTS", "LatentFn", "interpolate", "point_latents", "sample_latents", "training_latents", "walk_latents"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cardigan.latents import interpolation, sampling

    return {**vars(interpolation), **vars(sampling)}[name]


def __dir__() -> list[str]:
    return sorted(__all__)
