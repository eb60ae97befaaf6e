"""Latents: distributions, seeds, points and interpolations."""

from typing import TYPE_CHECKING

from cardigan.public_names import import_on_first_use

if TYPE_CHECKING:
    from cardigan.latents.interpolation import interpolate, point_latents, walk_latents
    from cardigan.latents.sampling import LATENTS, LatentFn, sample_latents, training_latents

__all__ = ["LATENTS", "LatentFn", "interpolate", "point_latents", "sample_latents", "training_latents", "walk_latents"]

__getattr__, __dir__ = import_on_first_use(
    __name__,
    {
        "interpolate": "interpolation",
        "point_latents": "interpolation",
        "walk_latents": "interpolation",
        "LATENTS": "sampling",
        "LatentFn": "sampling",
        "sample_latents": "sampling",
        "training_latents": "sampling",
    },
)
