"""Convolutions that begin, double, halve or end a picture, by whichever algorithm the processor runs fastest.

Parameters, names and results are those of `torch.nn.Conv2d` and `ConvTranspose2d`; in fp32 and on a GPU it is them, to the bit.
In bf16 on a CPU, oneDNN's kernels fall far behind its matrix product where weights are large and pictures small; there the same
sums are written as one matrix product (docs/lab-book.md has the times). Knows no network.

A 4x4 convolution of stride 2, summed against any g of its output's shape, is one number, linear in its input x, its weight w and in g:
<halved(x, w), g> = <x, doubled(g, w)> = <w, correlated(x, g)>. So every derivative of one of the three is another of the three,
to any order, and gradient penalties need nothing more.
"""

from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import linear, pad

Large: TypeAlias = Float[Tensor, "batch narrow height width"]
"""What is halved, and what doubling gives."""
Small: TypeAlias = Float[Tensor, "batch wide half_height half_width"]
"""What halving gives, and what is doubled."""
Kernel: TypeAlias = Float[Tensor, "wide narrow 4 4"]

KERNEL, STRIDE, PADDING = (4, 4), (2, 2), (1, 1)
NATIVE = (STRIDE, PADDING, (1, 1))

# Where the matrix product wins; measured on AVX-512 bf16 with batches 16, 64 and 256 (docs/lab-book.md, "Convolutions").
LARGE_WEIGHTS = 2**20
"""Weights from which on a layer with small pictures is multiplied as a matrix; smaller ones stay in the cache either way."""
SHORT_ROWS = 4
"""Pixels in a row of the small picture up to which oneDNN, which works along rows, is slow."""
CORRELATED_WEIGHTS, CORRELATED_ROWS = 2**19, 32
"""The gradient of weights is a product from this many of them on, unless there are over 32 times more pixels than channels."""


class Convolution(nn.Conv2d):
    """A convolution that halves the picture (4x4, stride 2, padding 1) or sees the whole of it at once; any other is computed as it always was.

    Each way reads the weight once: one that is computed when it is read (`spectral.py`) is computed once.
    """

    def forward(self, input: Tensor) -> Tensor:
        ends = (self.stride, self.padding, self.kernel_size) == ((1, 1), (0, 0), tuple(input.shape[2:]))
        if not _in_bf16_on_cpu(input) or not (ends or self._halves(input)):
            return super().forward(input)
        x, weight, bias = _in_bf16(input, self.weight, self.bias)
        if ends:
            return linear(_rows(x, len(x)), _rows(weight, len(weight)), bias)[:, :, None, None]
        return _with_bias(Halved.apply(x, weight), bias)

    def _halves(self, input: Tensor) -> bool:
        shape = (self.kernel_size, self.stride, self.padding, self.dilation, self.groups)
        even = input.shape[2] % 2 == input.shape[3] % 2 == 0
        return shape == (KERNEL, STRIDE, PADDING, (1, 1), 1) and even and _worth_it(self)


class Deconvolution(nn.ConvTranspose2d):
    """A transposed convolution that doubles the picture (4x4, stride 2, padding 1) or begins it from one point; any other is as it always was."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        begins = (self.stride, self.padding, tuple(input.shape[2:])) == ((1, 1), (0, 0), (1, 1))
        if not _in_bf16_on_cpu(input) or output_size is not None or not (begins or self._doubles()):
            return super().forward(input, output_size)
        x, weight, bias = _in_bf16(input, self.weight, self.bias)
        if begins:
            grown = x.flatten(1) @ _rows(weight, len(weight))
            return _with_bias(grown.view(len(x), *weight.shape[2:], -1).permute(0, 3, 1, 2), bias)
        return _with_bias(Doubled.apply(x, weight), bias)

    def _doubles(self) -> bool:
        shape = (self.kernel_size, self.stride, self.padding, self.output_padding, self.dilation, self.groups)
        return shape == (KERNEL, STRIDE, PADDING, (0, 0), (1, 1), 1) and _worth_it(self)


class Halved(Function):
    """The convolution, as a function of its input and its weight."""

    @staticmethod
    def forward(ctx: Any, x: Large, w: Kernel) -> Small:
        ctx.save_for_backward(x, w)
        return halved(x, w)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (g,), (x, w) = gradients, ctx.saved_tensors
        return (Doubled.apply(g, w) if ctx.needs_input_grad[0] else None), (Correlated.apply(x, g) if ctx.needs_input_grad[1] else None)


class Doubled(Function):
    """The transposed convolution, as a function of its input and its weight."""

    @staticmethod
    def forward(ctx: Any, g: Small, w: Kernel) -> Large:
        ctx.save_for_backward(g, w)
        return doubled(g, w)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (x,), (g, w) = gradients, ctx.saved_tensors
        return (Halved.apply(x, w) if ctx.needs_input_grad[0] else None), (Correlated.apply(x, g) if ctx.needs_input_grad[1] else None)


class Correlated(Function):
    """The gradient of the weight, as a function of the large picture and the small one."""

    @staticmethod
    def forward(ctx: Any, x: Large, g: Small) -> Kernel:
        ctx.save_for_backward(x, g)
        return correlated(x, g)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (w,), (x, g) = gradients, ctx.saved_tensors
        return (Doubled.apply(g, w) if ctx.needs_input_grad[0] else None), (Halved.apply(x, w) if ctx.needs_input_grad[1] else None)


def halved(x: Large, w: Kernel) -> Small:
    if w.numel() >= LARGE_WEIGHTS and x.shape[3] // 2 <= SHORT_ROWS:
        return halved_by_product(x, w)
    return torch.ops.aten.convolution(x, w, None, *NATIVE, False, (0, 0), 1)


def doubled(g: Small, w: Kernel) -> Large:
    if w.numel() >= LARGE_WEIGHTS and g.shape[3] <= SHORT_ROWS:
        return doubled_by_product(g, w)
    return torch.ops.aten.convolution(g, w, None, *NATIVE, True, (0, 0), 1)


def correlated(x: Large, g: Small) -> Kernel:
    wide, narrow = g.shape[1], x.shape[1]
    if wide * narrow * 16 >= CORRELATED_WEIGHTS and g.numel() <= CORRELATED_ROWS * wide**2:
        return correlated_by_product(x, g)
    shape = x.new_empty(1).expand(wide, narrow, *KERNEL)
    return torch.ops.aten.convolution_backward(g, x, shape, None, *NATIVE, False, (0, 0), 1, (False, True, False))[1]


def halved_by_product(x: Large, w: Kernel) -> Small:
    """Return every 4x4 window of x times the weights: one matrix product."""
    batch, _, height, width = x.shape
    return (_windows(x) @ _rows(w, len(w)).t()).view(batch, height // 2, width // 2, len(w)).permute(0, 3, 1, 2)


def doubled_by_product(g: Small, w: Kernel) -> Large:
    """Return the sum of the 4x4 windows that the pixels of g spread over: one matrix product, then four additions."""
    (batch, wide, height, width), narrow = g.shape, w.shape[1]
    spread = (_pixels(g) @ _rows(w, wide)).view(batch, height, width, 4, 4, narrow)
    padded = spread.new_zeros(batch, 2 * height + 2, 2 * width + 2, narrow)
    pairs = padded.view(batch, height + 1, 2, width + 1, 2, narrow)  # a window is two by two pairs of pixels, and so are its neighbours' overlaps
    for down in (0, 1):
        for right in (0, 1):
            part = spread[:, :, :, 2 * down : 2 * down + 2, 2 * right : 2 * right + 2]
            pairs[:, down : height + down, :, right : width + right] += part.transpose(2, 3)
    return padded[:, 1:-1, 1:-1].contiguous().permute(0, 3, 1, 2)


def correlated_by_product(x: Large, g: Small) -> Kernel:
    """Return the pixels of g times the windows of x they came from: one matrix product over all pixels."""
    return (_pixels(g).t() @ _windows(x)).view(g.shape[1], *KERNEL, x.shape[1]).permute(0, 3, 1, 2)


def _windows(x: Large) -> Float[Tensor, "pixels sixteen_narrow"]:
    """Return the 4x4 window around each pixel of the halved picture, a row each, channels innermost."""
    padded = pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    batch, height, width, channels = padded.shape
    along_batch, down, right, deep = padded.stride()
    shape = (batch, height // 2 - 1, width // 2 - 1, *KERNEL, channels)
    return padded.as_strided(shape, (along_batch, 2 * down, 2 * right, down, right, deep)).reshape(-1, 16 * channels)


def _pixels(images: Tensor) -> Tensor:
    """Return one row of channels per pixel; a view of channels-last pictures."""
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1])


def _rows(tensor: Tensor, count: int) -> Tensor:
    """Return `count` rows in the order of channels-last memory; a view if it is laid out so."""
    return tensor.permute(0, 2, 3, 1).reshape(count, -1)


def _in_bf16(input: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    return input.to(torch.bfloat16), weight.to(torch.bfloat16), None if bias is None else bias.to(torch.bfloat16)


def _worth_it(layer: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    return layer.in_channels * layer.out_channels * 16 >= CORRELATED_WEIGHTS


def _with_bias(images: Tensor, bias: Tensor | None) -> Tensor:
    return images if bias is None else images + bias[:, None, None]


def _in_bf16_on_cpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
