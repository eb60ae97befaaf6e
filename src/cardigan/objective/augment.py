"""Differentiable augmentation, which keeps a discriminator from overfitting to few images.

Pure functions of images and uniform random numbers. Nothing waits for the device and no shape depends on data, so all
of it can be captured in a CUDA graph. Knows neither networks nor random number generators.

DiffAugment (arXiv:2006.10738, section 3) is `color`, `translation` and `cutout`, at p = 1. ADA (arXiv:2006.06676,
appendix B) is the other twelve operations, from its sets "pixel blitting", "geometry" and "color"; `next_probability`
(`training/ada.py`) adapts their p. Unlike the paper's warp, this one samples bilinearly without wavelet filters, so
downscaled images may alias. Images need not be square.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate

from jaxtyping import Float
from torch import Tensor

from cardigan.errors import unknown
from cardigan.objective.operations.color import COLOR_OPERATIONS, apply_color_matrices
from cardigan.objective.operations.diff_augment import color, cutout, translation
from cardigan.objective.operations.draws import Draws
from cardigan.objective.operations.draws import is_applied as is_applied
from cardigan.objective.operations.geometry import GEOMETRIC_OPERATIONS
from cardigan.objective.operations.resampling import warp
from cardigan.shapes import Images, Scalar


@dataclass(frozen=True)
class Operation:
    """One augmentation of a batch of images."""

    num_draws: int
    """Number of uniform random numbers it reads for each image. The first decides whether it is applied (see
    `is_applied`), the others how."""
    apply: Callable[[Images, Draws, Scalar], Images] | None = None
    """Returns the images after the operation, which each image gets with probability p. Must be deterministic and
    twice differentiable, and must not wait for the device. None for the operations of `GEOMETRIC_OPERATIONS` and
    `COLOR_OPERATIONS`."""
    needs_color: bool = False
    """Whether it has no effect on grayscale images."""


OPERATIONS: dict[str, Operation] = {
    "x-flip": Operation(2),
    "rotate90": Operation(2),
    "integer-translation": Operation(3),
    "isotropic-scale": Operation(2),
    "rotate": Operation(4),
    "anisotropic-scale": Operation(2),
    "fractional-translation": Operation(3),
    "brightness": Operation(2),
    "contrast": Operation(2),
    "luma-flip": Operation(2),
    "hue": Operation(2, needs_color=True),
    "saturation": Operation(2, needs_color=True),
    "color": Operation(4, color),
    "translation": Operation(3, translation),
    "cutout": Operation(3, cutout),
}
"""The operations by name, applied in this order, except that `rotate` is applied before and after `anisotropic-scale`.

A built-in operation's columns of the uniform numbers depend only on its position in this table, not on the rest of the
pipeline.
"""
BUILTIN_OPERATIONS = tuple(OPERATIONS)
ADA = BUILTIN_OPERATIONS[:12]
DIFF_AUGMENT = BUILTIN_OPERATIONS[12:]


def num_draws(pipeline: tuple[str, ...]) -> int:
    """Return how many uniform numbers per image `augment` needs: those of all built-in operations, and those of other
    operations in the pipeline. 0 for an empty pipeline.

    Raises CardiganError for an unknown operation.
    """
    for name in pipeline:
        if name not in OPERATIONS:
            raise unknown("augmentation", name, OPERATIONS)
    return sum(OPERATIONS[name].num_draws for name in _drawn_operations(pipeline)) if pipeline else 0


def _drawn_operations(pipeline: tuple[str, ...]) -> tuple[str, ...]:
    """Return the operations that have columns of uniform numbers, in the columns' order.

    An installed plug-in that a run does not use must not change the run's random numbers.
    """
    return (*BUILTIN_OPERATIONS, *(name for name in OPERATIONS if name in pipeline and name not in BUILTIN_OPERATIONS))


def augment(images: Images, pipeline: tuple[str, ...], uniforms: Float[Tensor, "batch count"], p: Scalar) -> Images:
    """Return the images after applying each operation of the pipeline to each image with probability p.

    `uniforms` are in [0, 1), with `num_draws(pipeline)` columns and one row per image. Images have any size and 1 or 3
    channels, plus an optional alpha channel, which color operations do not change. Output values may leave [-1, 1].
    Images to which no operation is applied are returned exactly. The function is deterministic and twice differentiable
    with respect to the images.
    """
    expected = num_draws(pipeline)
    assert uniforms.shape[1] == expected, f"{uniforms.shape[1]} numbers for each image, not {expected}"
    drawn = _drawn_operations(pipeline)
    starts = accumulate((OPERATIONS[name].num_draws for name in drawn), initial=0)
    draws = {
        name: uniforms[:, start : start + OPERATIONS[name].num_draws]
        for name, start in zip(drawn, starts, strict=False)
        if name in pipeline
    }
    height, width = images.shape[2:]
    if affine_matrices := [
        affine(draws[name], p, height, width) for name, affine in GEOMETRIC_OPERATIONS if name in draws
    ]:
        images = warp(images, reduce(matrix_product, affine_matrices))
    if color_matrices := [color_matrix(draws[name], p) for name, color_matrix in COLOR_OPERATIONS if name in draws]:
        images = apply_color_matrices(images, reduce(matrix_product, reversed(color_matrices)))
    for name, columns in draws.items():
        operation = OPERATIONS[name].apply
        if operation is not None:
            images = operation(images, columns, p)
    return images


def matrix_product(first: Float[Tensor, "batch n n"], second: Float[Tensor, "batch n n"]) -> Float[Tensor, "batch n n"]:
    """Return first @ second in full precision. TF32, which a GPU may use for matrix products, would move pixels."""
    return (first[:, :, :, None] * second[:, None]).sum(2)
