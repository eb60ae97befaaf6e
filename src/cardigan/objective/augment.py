"""Differentiable augmentation, which keeps a discriminator from overfitting to few images.

Pure functions of images and uniform random numbers. Nothing waits for the device and no shape depends on data, so all
of it can be captured in a CUDA graph. Knows neither networks nor random number generators.

DiffAugment (arXiv:2006.10738, section 3) is `color`, `translation` and `cutout`, at p = 1. ADA (arXiv:2006.06676,
appendix B) is the other twelve operations, from its sets "pixel blitting", "geometry" and "color"; `next_probability`
(`training/ada.py`) adapts their p. Unlike the paper's warp, this one samples bilinearly without wavelet filters, so
downscaled images may alias. Images need not be square.
"""

from functools import reduce
from itertools import accumulate

from jaxtyping import Float
from torch import Tensor

from cardigan.errors import unknown
from cardigan.objective.operations.color import COLOR_OPERATIONS, apply_color_matrices
from cardigan.objective.operations.diff_augment import IMAGE_OPERATIONS
from cardigan.objective.operations.geometry import GEOMETRIC_OPERATIONS
from cardigan.objective.operations.resampling import warp
from cardigan.shapes import Images, Scalar

OPERATIONS = {
    "x-flip": 2,
    "rotate90": 2,
    "integer-translation": 3,
    "isotropic-scale": 2,
    "rotate": 4,
    "anisotropic-scale": 2,
    "fractional-translation": 3,
    "brightness": 2,
    "contrast": 2,
    "luma-flip": 2,
    "hue": 2,
    "saturation": 2,
    "color": 4,
    "translation": 3,
    "cutout": 3,
}
"""Number of uniform random numbers each operation reads. The first decides whether it is applied, the others how.

Operations are applied in this order, except that `rotate` is applied before and after `anisotropic-scale`. An
operation's columns depend only on its position in this table, not on the rest of the pipeline.
"""

ADA = tuple(OPERATIONS)[:12]
DIFF_AUGMENT = tuple(OPERATIONS)[12:]


def num_draws(pipeline: tuple[str, ...]) -> int:
    """Return how many uniform numbers per image `augment` needs: those of the whole table, or 0 for an empty pipeline.

    Raises CardiganError for an unknown operation.
    """
    for name in pipeline:
        if name not in OPERATIONS:
            raise unknown("augmentation", name, OPERATIONS)
    return sum(OPERATIONS.values()) if pipeline else 0


def augment(images: Images, pipeline: tuple[str, ...], uniforms: Float[Tensor, "batch count"], p: Scalar) -> Images:
    """Return the images after applying each operation of the pipeline to each image with probability p.

    `uniforms` are in [0, 1), with `num_draws(pipeline)` columns and one row per image. Images have any size and 1 or 3
    channels, plus an optional alpha channel, which color operations do not change. Output values may leave [-1, 1].
    Images to which no operation is applied are returned exactly. The function is deterministic and twice differentiable
    with respect to the images.
    """
    expected = num_draws(pipeline)
    assert uniforms.shape[1] == expected, f"{uniforms.shape[1]} numbers for each image, not {expected}"
    starts = zip(OPERATIONS, accumulate(OPERATIONS.values(), initial=0), strict=False)
    draws = {name: uniforms[:, start : start + OPERATIONS[name]] for name, start in starts if name in pipeline}
    height, width = images.shape[2:]
    if affine_matrices := [
        affine(draws[name], p, height, width) for name, affine in GEOMETRIC_OPERATIONS if name in draws
    ]:
        images = warp(images, reduce(matrix_product, affine_matrices))
    if color_matrices := [color_matrix(draws[name], p) for name, color_matrix in COLOR_OPERATIONS if name in draws]:
        images = apply_color_matrices(images, reduce(matrix_product, reversed(color_matrices)))
    for name, operation in IMAGE_OPERATIONS:
        if name in draws:
            images = operation(images, draws[name], p)
    return images


def matrix_product(first: Float[Tensor, "batch n n"], second: Float[Tensor, "batch n n"]) -> Float[Tensor, "batch n n"]:
    """Return first @ second in full precision. TF32, which a GPU may use for matrix products, would move pixels."""
    return (first[:, :, :, None] * second[:, None]).sum(2)
