"""Frozen convolutional networks made fast: batch normalization folded into the convolutions, cheap input gradients.

A frozen network needs the gradient with respect to its input and never one with respect to its weights. Its depthwise
convolutions' input gradients are computed as convolutions with the flipped kernel, instead of by PyTorch's backward
(docs/lab-book.md, "A light generator and a projected discriminator"; `benchmarks/frozen_backbone.py`).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, linear, pad

Maps = Float[Tensor, "batch channel height width"]
NewMaps = Float[Tensor, "batch new_channel new_height new_width"]


MAX_PIXELS_FOR_PRODUCT = 16
"""In bf16, a 1x1 convolution of maps with at most this many pixels is computed as a matrix product: 1.1 to 1.6 times as
fast (docs/lab-book.md)."""


def fold_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> "FoldedConv2d":
    """Return the convolution that computes both, for a batch normalization in evaluation mode."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return FoldedConv2d(
        (conv.weight * scale[:, None, None, None]).detach(),
        (norm.bias - norm.running_mean * scale).detach(),
        conv.stride[0],
    )


class FoldedConv2d(nn.Module):
    """A convolution with bias and TensorFlow's SAME padding: the odd row and column go to the bottom and the right."""

    def __init__(self, weight: Tensor, bias: Tensor, stride: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight, requires_grad=False), nn.Parameter(bias, requires_grad=False)
        self.stride = stride
        self.is_depthwise = weight.shape[1] == 1 and weight.shape[0] > 1
        self.groups = weight.shape[0] if self.is_depthwise else 1

    def forward(self, x: Maps) -> NewMaps:
        kernel = self.weight.shape[2]
        if kernel == self.stride == 1 and x.dtype == torch.bfloat16 and x.shape[2:].numel() <= MAX_PIXELS_FOR_PRODUCT:
            return pointwise_conv(x, self.weight, self.bias)
        rows, columns = (max((-(-side // self.stride) - 1) * self.stride + kernel - side, 0) for side in x.shape[2:])
        padding = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        if self.is_depthwise and x.requires_grad and torch.is_grad_enabled():
            return DepthwiseConv.apply(x, self.weight, self.bias, self.stride, padding)
        return padded_conv(x, self.weight, self.bias, self.stride, padding, self.groups)


class DepthwiseConv(Function):
    """A depthwise convolution whose backward computes the input gradient only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.stride, ctx.padding, ctx.size = stride, padding, x.shape[2:]
        return padded_conv(x, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (weight,), (gradient,) = ctx.saved_tensors, gradients
        return depthwise_input_gradient(gradient, weight, ctx.stride, ctx.padding, ctx.size), None, None, None, None


def depthwise_input_gradient(
    gradient: Tensor, weight: Tensor, stride: int, padding: tuple[int, ...], size: tuple[int, ...]
) -> Tensor:
    """Return the input gradient: the output gradient, with zeros between its pixels, convolved with the flipped kernel.

    `padding` (left, right, top, bottom) is what the forward pass padded the input with, `size` its height and width.
    """
    kernel, (left, _, top, _) = weight.shape[2], padding
    if stride > 1:
        spread = gradient.new_zeros(
            len(gradient),
            gradient.shape[1],
            (gradient.shape[2] - 1) * stride + 1,
            (gradient.shape[3] - 1) * stride + 1,
        ).to(memory_format=torch.channels_last)
        spread[:, :, ::stride, ::stride] = gradient
        gradient = spread
    bottom = size[0] + kernel - 1 - gradient.shape[2] - (kernel - 1 - top)
    right = size[1] + kernel - 1 - gradient.shape[3] - (kernel - 1 - left)
    around = (kernel - 1 - left, right, kernel - 1 - top, bottom)
    return padded_conv(gradient, weight.flip(2, 3), None, 1, around)


def padded_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: tuple[int, ...], groups: int | None = None
) -> Tensor:
    """Return the convolution of the padded input; depthwise unless `groups` says otherwise.

    `padding` is (left, right, top, bottom). Sides that differ by one need no padded copy of the input: one more row or
    column of zeros in the kernel does the same.
    """
    left, right, top, bottom = padding
    groups = len(weight) if groups is None else groups
    if abs(left - right) > 1 or abs(top - bottom) > 1:
        return conv2d(pad(x, padding), weight, bias, stride, 0, 1, groups)
    if padding != (left, left, top, top):
        weight = pad(weight, (int(right > left), int(left > right), int(bottom > top), int(top > bottom)))
    return conv2d(x, weight, bias, stride, (max(top, bottom), max(left, right)), 1, groups)


def pointwise_conv(x: Maps, weight: Tensor, bias: Tensor) -> NewMaps:
    """Return a 1x1 convolution, computed as a matrix product over all pixels."""
    return linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
