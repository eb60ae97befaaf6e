"""Differentiable augmentation, which keeps a discriminator from overfitting to few images.

Pure functions of images and uniform random numbers. Nothing waits for the device and no shape depends on data, so all
of it can be captured in a CUDA graph. Knows neither networks nor random number generators.

DiffAugment (arXiv:2006.10738, section 3) is `color`, `translation` and `cutout`, at p = 1. ADA (arXiv:2006.06676,
appendix B) is the other twelve operations, from its sets "pixel blitting", "geometry" and "color"; `next_probability`
(`training/ada.py`) adapts their p. Unlike the paper's warp, this one samples bilinearly without wavelet filters, so
downscaled images may alias. Images need not be square.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate, product
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.autograd import Function

from cardigan.errors import unknown
from cardigan.hardware.metal import is_metal
from cardigan.shapes import Images, Scalar

Draws: TypeAlias = Float[Tensor, "batch draws"]
"""One operation's columns of the uniform numbers."""

Parameters: TypeAlias = Float[Tensor, " batch"]
MatrixEntry: TypeAlias = Parameters | float
MatrixRow: TypeAlias = tuple[MatrixEntry, MatrixEntry, MatrixEntry]

AffineMatrices: TypeAlias = Float[Tensor, "batch 3 3"]
"""Map (x, y, 1) of the output image to a position in the input image, in pixels from the center."""

ColorMatrices: TypeAlias = Float[Tensor, "batch 4 4"]
"""Map colors (red, green, blue, 1)."""

NeighborIndices: TypeAlias = Int64[Tensor, "batch neighbor pixel"]
"""Flat indices of the input pixels whose weighted sum is an output pixel."""

NeighborWeights: TypeAlias = Float[Tensor, "batch neighbor pixel"]
FlatPixels: TypeAlias = Float[Tensor, "batch channel row"]


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


def is_applied(draws: Draws, p: Scalar) -> Bool[Tensor, " batch"]:
    """Return which images an operation is applied to. For the others its parameters are multiplied by 0."""
    return draws[:, 0] < p


def normal_from_uniform(uniform: Parameters) -> Parameters:
    """Return standard normal numbers by the inverse distribution function, clipped to +-4.9 since uniforms can be 0."""
    return math.sqrt(2) * (2 * uniform - 1).clamp(-1 + 1e-6, 1 - 1e-6).erfinv()


# ADA's geometric operations: each function returns the inverse of its effect on an image.


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


# ADA's color operations. v = (1, 1, 1) / sqrt(3) is the gray axis.


def brightness(draws: Draws, p: Scalar) -> ColorMatrices:
    """Add Normal(0, 0.2^2)."""
    return color_transform(draws, offset=0.2 * is_applied(draws, p) * normal_from_uniform(draws[:, 1]))


def contrast(draws: Draws, p: Scalar) -> ColorMatrices:
    """Multiply by 2^Normal(0, 0.5^2)."""
    return color_transform(
        draws, identity_gain=torch.exp2(0.5 * is_applied(draws, p) * normal_from_uniform(draws[:, 1]))
    )


def luma_flip(draws: Draws, p: Scalar) -> ColorMatrices:
    """Invert the luma of half of the images and keep hue and saturation: I - 2 v v^T."""
    return color_transform(draws, gray_gain=-2 * (is_applied(draws, p) * torch.floor(2 * draws[:, 1])))


def hue(draws: Draws, p: Scalar) -> ColorMatrices:
    """Rotate about v by any angle: Rodrigues' formula."""
    angle = is_applied(draws, p) * (2 * draws[:, 1] - 1) * math.pi
    return color_transform(draws, identity_gain=angle.cos(), gray_gain=1 - angle.cos(), cross_gain=angle.sin())


def saturation(draws: Draws, p: Scalar) -> ColorMatrices:
    """Multiply the distance from v by 2^Normal(0, 1)."""
    factor = torch.exp2(is_applied(draws, p) * normal_from_uniform(draws[:, 1]))
    return color_transform(draws, identity_gain=factor, gray_gain=1 - factor)


# DiffAugment.


def color(images: Images, draws: Draws, p: Scalar) -> Images:
    """Add [-0.5, 0.5) to brightness, then multiply saturation by [0, 2) and contrast around the mean by [0.5, 1.5)."""
    brightness_shift, saturation_change, contrast_change = (
        (is_applied(draws, p) * (draws[:, i] - 0.5))[:, None, None, None] for i in (1, 2, 3)
    )
    color_channels, alpha = split_alpha(images)
    color_channels = color_channels + brightness_shift
    color_channels = (1 + 2 * saturation_change) * color_channels - 2 * saturation_change * color_channels.mean(
        1, keepdim=True
    )
    color_channels = (1 + contrast_change) * color_channels - contrast_change * color_channels.mean(
        (1, 2, 3), keepdim=True
    )
    return torch.cat([color_channels, alpha], dim=1)


def translation(images: Images, draws: Draws, p: Scalar) -> Images:
    """Shift by whole pixels, up to 1/8 of the width and height. Empty areas are 0, which is gray, as in the paper."""
    axes = []
    for i, size in ((1, images.shape[2]), (2, images.shape[3])):
        max_shift = int(size / 8 + 0.5)
        offset = is_applied(draws, p) * (torch.floor(draws[:, i] * (2 * max_shift + 1)) - max_shift)
        axes.append(torch.arange(size, device=draws.device) - offset.long()[:, None])
    down, across = axes[0][:, :, None], axes[1][:, None, :]
    height, width = images.shape[2:]
    inside = (down >= 0) & (down < height) & (across >= 0) & (across < width)
    source = down.clamp(0, height - 1) * width + across.clamp(0, width - 1)
    return gather_weighted(images, source.flatten(1)[:, None], inside.flatten(1)[:, None].to(draws.dtype))


def cutout(images: Images, draws: Draws, p: Scalar) -> Images:
    """Set a rectangle of half the height and width to 0. Its center is inside the image, its edges may not be."""
    covered = []
    for i, size in ((1, images.shape[2]), (2, images.shape[3])):
        hole_size = int(size / 2 + 0.5)
        start = torch.floor(draws[:, i] * (size + 1 - hole_size % 2)) - hole_size // 2
        offset = torch.arange(size, device=draws.device) - start[:, None]
        covered.append((offset >= 0) & (offset < hole_size))
    mask = covered[0][:, :, None] & covered[1][:, None, :] & is_applied(draws, p)[:, None, None]
    return images.masked_fill(mask[:, None], 0.0)


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
COLOR_OPERATIONS = (
    ("brightness", brightness),
    ("contrast", contrast),
    ("luma-flip", luma_flip),
    ("hue", hue),
    ("saturation", saturation),
)
"""Combined into one matrix."""
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


def affine_matrix(like: Draws, row_x: MatrixRow, row_y: MatrixRow) -> AffineMatrices:
    """Return the matrices with these first two rows. A scalar entry is the same in all matrices."""
    entries = [
        entry if isinstance(entry, Tensor) else torch.full_like(like[:, 0], entry)
        for entry in (*row_x, *row_y, 0.0, 0.0, 1.0)
    ]
    return torch.stack(entries, dim=1).unflatten(1, (3, 3))


def rotation_matrix(like: Draws, cosine: Parameters, sine: Parameters) -> AffineMatrices:
    return affine_matrix(like, (cosine, -sine, 0.0), (sine, cosine, 0.0))


def color_transform(
    like: Draws,
    *,
    identity_gain: MatrixEntry = 1.0,
    gray_gain: MatrixEntry = 0.0,
    cross_gain: MatrixEntry = 0.0,
    offset: MatrixEntry = 0.0,
) -> ColorMatrices:
    """Return the map of a color c to identity_gain c + gray_gain v (v . c) + cross_gain (v x c) + offset."""
    identity_gain, gray_gain, cross_gain, offset = (
        part[:, None, None] if isinstance(part, Tensor) else part
        for part in (identity_gain, gray_gain, cross_gain, offset)
    )
    identity = torch.eye(3, dtype=like.dtype, device=like.device)
    across = (identity.roll(1, 0) - identity.roll(1, 1)) / math.sqrt(3)
    matrices = torch.eye(4, dtype=like.dtype, device=like.device).repeat(like.shape[0], 1, 1)
    matrices[:, :3, :3] = identity_gain * identity + gray_gain * (torch.ones_like(identity) / 3) + cross_gain * across
    matrices[:, :3, 3:] = offset
    return matrices


def matrix_product(first: Float[Tensor, "batch n n"], second: Float[Tensor, "batch n n"]) -> Float[Tensor, "batch n n"]:
    """Return first @ second in full precision. TF32, which a GPU may use for matrix products, would move pixels."""
    return (first[:, :, :, None] * second[:, None]).sum(2)


def split_alpha(
    images: Images,
) -> tuple[Float[Tensor, "batch color height width"], Float[Tensor, "batch alpha height width"]]:
    num_color_channels = 3 if images.shape[1] >= 3 else 1
    return images[:, :num_color_channels], images[:, num_color_channels:]


def apply_color_matrices(images: Images, color_matrices: ColorMatrices) -> Images:
    """Return the images with mapped colors. For grayscale images, only the part along v is kept."""
    color_channels, alpha = split_alpha(images)
    linear, offset = color_matrices[:, :3, :3], color_matrices[:, :3, 3]
    if color_channels.shape[1] == 1:
        linear, offset = linear.sum(2, keepdim=True).mean(1, keepdim=True), offset.mean(1, keepdim=True)
    parts = [linear[:, :, i, None, None] * color_channels[:, i, None] for i in range(color_channels.shape[1])]
    return torch.cat([sum(parts, offset[:, :, None, None]), alpha], dim=1)


def warp(images: Images, affine_matrices: AffineMatrices) -> Images:
    """Return the images resampled at the positions of the affine maps, by bilinear interpolation of four pixels."""
    height, width = images.shape[2:]
    center_x, center_y = (width - 1) / 2, (height - 1) / 2
    x = torch.arange(width, dtype=affine_matrices.dtype, device=affine_matrices.device) - center_x
    y = torch.arange(height, dtype=affine_matrices.dtype, device=affine_matrices.device)[:, None] - center_y
    to_x, to_y = (affine_matrices[:, i, :, None, None].unbind(1) for i in (0, 1))
    from_x = (to_x[0] * x + to_x[1] * y + to_x[2]) + center_x
    from_y = (to_y[0] * x + to_y[1] * y + to_y[2]) + center_y
    left, top = from_x.floor(), from_y.floor()
    right_weight, bottom_weight = from_x - left, from_y - top
    columns = [(reflect_indices(left + i, width), weight) for i, weight in ((0, 1 - right_weight), (1, right_weight))]
    rows = [(reflect_indices(top + i, height), weight) for i, weight in ((0, 1 - bottom_weight), (1, bottom_weight))]
    pairs = list(product(rows, columns))
    neighbors = torch.stack([(row * width + column).flatten(1) for (row, _), (column, _) in pairs], dim=1)
    weights = torch.stack(
        [(row_weight * column_weight).flatten(1) for (_, row_weight), (_, column_weight) in pairs], dim=1
    )
    return gather_weighted(images, neighbors, weights)


def reflect_indices(position: Float[Tensor, "batch height width"], size: int) -> Int64[Tensor, "batch height width"]:
    """Return integral positions reflected into 0..size-1. The edge pixel is repeated."""
    # Ten times faster than an integer remainder.
    position = position - 2 * size * torch.floor(position / (2 * size))
    return torch.minimum(position, 2 * size - 1 - position).long()


def gather_weighted(images: Images, neighbors: NeighborIndices, weights: NeighborWeights) -> Images:
    """Return images whose pixels are weighted sums of input pixels."""
    return _WeightedGather.apply(images.flatten(2), neighbors, weights).unflatten(2, images.shape[2:])


class _WeightedGather(Function):
    """Weighted sums of neighbors.

    `grid_sample` is not used: its gradient is not deterministic on a GPU, and older versions of PyTorch cannot
    differentiate it twice.
    """

    @staticmethod
    def forward(ctx: Any, values: FlatPixels, neighbors: NeighborIndices, weights: NeighborWeights) -> Tensor:
        ctx.save_for_backward(neighbors, weights)
        ctx.num_values = values.shape[2]
        index = neighbors.flatten(1)[:, None].expand(-1, values.shape[1], -1)
        return (values.gather(2, index).unflatten(2, neighbors.shape[1:]) * weights[:, None]).sum(2)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        return _WeightedScatter.apply(*grad_outputs, *ctx.saved_tensors, ctx.num_values), None, None


class _WeightedScatter(Function):
    """The transpose of `_WeightedGather`: adds each value to its neighbors.

    Values are summed as integers, scaled so that an image's largest value is 2^40. Integer sums do not depend on the
    order, so a resumed run ends with the same bits. Non-finite values propagate through the scale. Metal has no int64
    sum, so there it is computed on the CPU.
    """

    @staticmethod
    def forward(
        ctx: Any, values: FlatPixels, neighbors: NeighborIndices, weights: NeighborWeights, num_values: int
    ) -> Tensor:
        ctx.save_for_backward(neighbors, weights)
        device = values.device
        if is_metal(device):
            values, neighbors, weights = values.cpu(), neighbors.cpu(), weights.cpu()
        largest = values.abs().amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
        parts = (values / largest)[:, :, None] * (weights[:, None] * 2.0**40)
        index = neighbors.flatten(1)[:, None].expand(-1, values.shape[1], -1)
        sums = torch.zeros(*values.shape[:2], num_values, dtype=torch.int64, device=values.device)
        spread = sums.scatter_add_(2, index, parts.long().flatten(2)).to(values.dtype) * 2.0**-40 * largest
        return spread.to(device)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        return _WeightedGather.apply(*grad_outputs, *ctx.saved_tensors), None, None, None
