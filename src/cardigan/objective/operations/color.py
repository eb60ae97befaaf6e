"""ADA's color operations (arXiv:2006.06676, appendix B, "color"), as matrices.

v = (1, 1, 1) / sqrt(3) is the gray axis.
"""

import math
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from cardigan.objective.operations.draws import Draws, MatrixEntry, is_applied, normal_from_uniform
from cardigan.shapes import Images, Scalar

ColorMatrices: TypeAlias = Float[Tensor, "batch 4 4"]
"""Map colors (red, green, blue, 1)."""


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


COLOR_OPERATIONS = (
    ("brightness", brightness),
    ("contrast", contrast),
    ("luma-flip", luma_flip),
    ("hue", hue),
    ("saturation", saturation),
)
"""Combined into one matrix."""


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
