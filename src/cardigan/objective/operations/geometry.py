"""ADA's geometric operations (arXiv:2006.06676, appendix B, "pixel blitting" and "geometry"), as affine matrices.

Each operation returns the inverse of its effect on an image. `resampling.py` applies their product.
"""

import math
from typing import TypeAlias

import torch
from torch import Tensor

from cardigan.objective.operations.draws import Draws, MatrixEntry, Parameters, is_applied, normal_from_uniform
from cardigan.objective.operations.resampling import AffineMatrices
from cardigan.shapes import Scalar

MatrixRow: TypeAlias = tuple[MatrixEntry, MatrixEntry, MatrixEntry]


def x_flip(draws: Draws, p: Scalar, height: int, width: int) -> AffineMatrices:
    """Flip half of the images horizontally."""
    return affine_matrix(
        draws, (1 - 2 * (is_applied(draws, p) * torch.floor(2 * draws[:, 1])), 0.0, 0.0), (0.0, 1.0, 0.0)
    )


def rotate90(draws: Draws, p: Scalar, height: int, width: int) -> AffineMatrices:
    """Rotate by 0, 90, 180 or 270 degrees. Empty areas of images that are not square are filled by reflection."""
    angle = is_applied(draws, p) * torch.floor(4 * draws[:, 1]) * (math.pi / 2)
    return rotation_matrix(draws, angle.cos().round(), angle.sin().round())


def integer_translation(draws: Draws, p: Scalar, height: int, width: int) -> AffineMatrices:
    """Shift by whole pixels, up to 1/8 of the width and of the height."""
    across, down = (
        torch.round(is_applied(draws, p) * (draws[:, i] - 0.5) * size / 4) for i, size in ((1, width), (2, height))
    )
    return affine_matrix(draws, (1.0, 0.0, -across), (0.0, 1.0, -down))


def isotropic_scale(draws: Draws, p: Scalar, height: int, width: int) -> AffineMatrices:
    """Scale by a factor 2^Normal(0, 0.2^2)."""
    inverse = torch.exp2(-0.2 * is_applied(draws, p) * normal_from_uniform(draws[:, 1]))
    return affine_matrix(draws, (inverse, 0.0, 0.0), (0.0, inverse, 0.0))


def rotate_before(draws: Draws, p: Scalar, height: int, width: int) -> AffineMatrices:
    """Rotate by any angle before the anisotropic scaling.

    The probability is such that the image is rotated, before or after the scaling, with probability p.
    """
    angle = is_applied(draws, 1 - torch.sqrt(1 - p)) * (2 * draws[:, 1] - 1) * math.pi
    return rotation_matrix(draws, angle.cos(), angle.sin())


def rotate_after(draws: Draws, p: Scalar, height: int, width: int) -> AffineMatrices:
    """Rotate again after the anisotropic scaling, so that its axes also have any angle."""
    return rotate_before(draws[:, 2:], p, height, width)


def anisotropic_scale(draws: Draws, p: Scalar, height: int, width: int) -> AffineMatrices:
    """Scale the width by a factor 2^Normal(0, 0.2^2) and the height by its inverse."""
    factor = torch.exp2(0.2 * is_applied(draws, p) * normal_from_uniform(draws[:, 1]))
    return affine_matrix(draws, (1 / factor, 0.0, 0.0), (0.0, factor, 0.0))


def fractional_translation(draws: Draws, p: Scalar, height: int, width: int) -> AffineMatrices:
    """Shift by Normal(0, (1/8)^2) of the width and of the height."""
    across, down = (
        is_applied(draws, p) * normal_from_uniform(draws[:, i]) * size / 8 for i, size in ((1, width), (2, height))
    )
    return affine_matrix(draws, (1.0, 0.0, -across), (0.0, 1.0, -down))


GEOMETRIC_OPERATIONS = (
    ("x-flip", x_flip),
    ("rotate90", rotate90),
    ("integer-translation", integer_translation),
    ("isotropic-scale", isotropic_scale),
    ("rotate", rotate_before),
    ("anisotropic-scale", anisotropic_scale),
    ("rotate", rotate_after),
    ("fractional-translation", fractional_translation),
)
"""Combined into one bilinear warp with reflection padding."""


def affine_matrix(like: Draws, row_x: MatrixRow, row_y: MatrixRow) -> AffineMatrices:
    """Return the matrices with these first two rows. A scalar entry is the same in all matrices."""
    entries = [
        entry if isinstance(entry, Tensor) else torch.full_like(like[:, 0], entry)
        for entry in (*row_x, *row_y, 0.0, 0.0, 1.0)
    ]
    return torch.stack(entries, dim=1).unflatten(1, (3, 3))


def rotation_matrix(like: Draws, cosine: Parameters, sine: Parameters) -> AffineMatrices:
    return affine_matrix(like, (cosine, -sine, 0.0), (sine, cosine, 0.0))
