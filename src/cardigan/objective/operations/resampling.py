"""Resampling of images: pixels as weighted sums of other pixels, twice differentiable and deterministic on a GPU."""

from itertools import product
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd import Function

from cardigan.hardware.metal import is_metal
from cardigan.shapes import Images

AffineMatrices: TypeAlias = Float[Tensor, "batch 3 3"]
"""Map (x, y, 1) of the output image to a position in the input image, in pixels from the center."""

NeighborIndices: TypeAlias = Int64[Tensor, "batch neighbor pixel"]
"""Flat indices of the input pixels whose weighted sum is an output pixel."""

NeighborWeights: TypeAlias = Float[Tensor, "batch neighbor pixel"]
FlatPixels: TypeAlias = Float[Tensor, "batch channel row"]


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
