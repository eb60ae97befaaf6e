"""Convolution layers with fast second gradients, for gradient penalties.

Parameters, names and initial values are those of `torch.nn.Conv2d` and `ConvTranspose2d`. In fp32, outputs and first
gradients are equal to PyTorch's, bit for bit. Knows no network.

A convolution of x with the weight w, multiplied by any g of its output's shape and summed, is linear in x, in w and in
g: <conv(x, w), g> = <x, transposed(g, w)> = <w, weight_gradient(x, g)>. So each derivative of one of the three
functions is another of the three, to any order. PyTorch's own double backward instead computes the second gradient of a
weight as a convolution whose filter is as large as the image, and loops over groups. That is slow on every device
(docs/lab-book.md, "Second gradients of convolutions").

In bf16 on a CPU, oneDNN's convolution kernels are far slower than its matrix product for large weights and small
images. There the convolution is computed as one matrix product (docs/lab-book.md, "Speed on 2 cores").
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import conv2d, conv_transpose2d, linear, pad

from cardigan.hardware.metal import is_metal

Image: TypeAlias = Float[Tensor, "batch channel height width"]
"""The input of a convolution, and the output of a transposed convolution."""
Maps: TypeAlias = Float[Tensor, "batch feature map_height map_width"]
"""The output of a convolution, and the input of a transposed convolution."""
Weight: TypeAlias = Float[Tensor, "feature group_channel kernel_height kernel_width"]
Bias: TypeAlias = Float[Tensor, " bias"]
Gradients: TypeAlias = tuple[Weight, Bias | None]

convolution_backward = torch.ops.aten.convolution_backward.default

HALVING = ((2, 2), (1, 1), (1, 1), 1, (0, 0))
"""Geometry of a 4x4 convolution that halves an image of even sides: the only one with matrix-product forms."""

# Where the matrix product is faster: measured on AVX-512 bf16 with batches of 16, 64 and 256 (docs/lab-book.md,
# "Speed on 2 cores").
MIN_WEIGHTS_FOR_MATMUL = 2**20
"""A layer with small maps and at least this many weights is a matrix product. Fewer weights fit into the cache."""
MAX_ROW_FOR_MATMUL = 4
"""Maps with at most this many pixels in a row count as small. oneDNN works along rows and is slow on short ones."""
MIN_WEIGHTS_FOR_GRADIENT_MATMUL, MAX_PIXELS_PER_CHANNEL = 2**19, 32
"""With at least this many weights, their gradient is a matrix product, if there are at most 32 pixels per channel."""


@dataclass(frozen=True)
class Geometry:
    """The settings of a convolution, with PyTorch's names. Pairs are (height, width)."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    output_padding: tuple[int, int]
    """Rows and columns at the image's end that no window covers. The transposed convolution needs them for its size."""
    transposed: bool
    """Whether the layer is the transposed convolution. Its bias then belongs to the image, otherwise to the maps."""


class FastConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` with fast second gradients.

    The weight is read once per call: a weight that is computed when it is read (`spectral.py`) is computed once.
    """

    def forward(self, input: Tensor) -> Tensor:
        x, weight, bias = _autocast(input, self.weight, self.bias)
        if isinstance(self.padding, str) or self.padding_mode != "zeros" or x.dim() != 4:
            return self._conv_forward(x, weight, bias)
        if _is_bf16_on_cpu(x) and _is_dense(self, self.padding) and self.kernel_size == tuple(x.shape[2:]):
            return linear(_channels_last_rows(x, len(x)), _channels_last_rows(weight, len(weight)), bias)[
                :, :, None, None
            ]
        if _use_explicit_gradients(self, x, weight, bias):
            return StridedConv.apply(x, _not_leaf(weight), bias, self._geometry(x, self.padding))
        return self._conv_forward(x, weight, bias)

    def _geometry(self, x: Tensor, padding: tuple[int, ...]) -> Geometry:
        span = [gap * (side - 1) + 1 for side, gap in zip(self.kernel_size, self.dilation, strict=True)]
        padded = [size + 2 * added for size, added in zip(x.shape[2:], padding, strict=True)]
        rest = [(size - side) % step for size, side, step in zip(padded, span, self.stride, strict=True)]
        return _layer_geometry(self, padding, rest)


class FastConvTranspose2d(nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` with fast second gradients. The weight is read once per call."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        x, weight, bias = _autocast(input, self.weight, self.bias)
        padding = self.padding if isinstance(self.padding, tuple) else ()
        stride, kernel_size, dilation = [*self.stride], [*self.kernel_size], [*self.dilation]
        rest = self._output_padding(x, output_size, stride, [*padding], kernel_size, 2, dilation)
        if _is_bf16_on_cpu(x) and _is_dense(self, padding) and tuple(x.shape[2:]) == (1, 1) and not any(rest):
            image = (x.flatten(1) @ _channels_last_rows(weight, len(weight))).view(len(x), *weight.shape[2:], -1)
            return _add_bias(image.permute(0, 3, 1, 2), bias)
        # Output padding of a whole stride or more (PyTorch allows it with dilation) has no matching convolution.
        is_supported = x.dim() == 4 and all(row < step for row, step in zip(rest, stride, strict=True))
        if is_supported and _use_explicit_gradients(self, x, weight, bias):
            return TransposedConv.apply(x, _not_leaf(weight), bias, _layer_geometry(self, padding, rest), None)
        return conv_transpose2d(x, weight, bias, self.stride, padding, tuple(rest), self.groups, self.dilation)


class StridedConv(Function):
    """The convolution, as a function of its input, its weight and its bias."""

    @staticmethod
    def forward(ctx: Any, x: Image, w: Weight, bias: Bias | None, geometry: Geometry) -> Maps:
        ctx.save_for_backward(x, w)
        ctx.geometry = geometry
        return strided_conv(x, w, bias, geometry)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (g,), (x, w), geometry = gradients, ctx.saved_tensors, ctx.geometry
        to_x = _apply(TransposedConv, g, w, None, geometry, x.detach()) if _is_needed(ctx, 0) else None
        to_w, to_bias = _weight_and_bias_gradients(ctx, x, g, w)
        return to_x, to_w, to_bias, None


class TransposedConv(Function):
    """The transposed convolution, as a function of its input, its weight and its bias.

    `like` has the shape and the layout of the image. It is None in a layer and set if this computes a gradient.
    """

    @staticmethod
    def forward(ctx: Any, g: Maps, w: Weight, bias: Bias | None, geometry: Geometry, like: Image | None) -> Image:
        ctx.save_for_backward(g, w)
        ctx.geometry = geometry
        return transposed_conv(g, w, bias, geometry, like)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (x,), (g, w), geometry = gradients, ctx.saved_tensors, ctx.geometry
        to_g = _apply(StridedConv, x, w, None, geometry) if _is_needed(ctx, 0) else None
        to_w, to_bias = _weight_and_bias_gradients(ctx, x, g, w)
        return to_g, to_w, to_bias, None, None


class WeightGradient(Function):
    """The gradients of the weight and of the bias (None without one), as a function of the image and the maps.

    `like` has the shape and the layout of the weight.
    """

    @staticmethod
    def forward(ctx: Any, x: Image, g: Maps, with_bias: bool, geometry: Geometry, like: Weight) -> Gradients:
        ctx.save_for_backward(x, g)
        ctx.geometry = geometry
        return weight_gradient(x, g, with_bias, geometry, like)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (w, bias), (x, g), geometry = gradients, ctx.saved_tensors, ctx.geometry
        of_image, of_maps = (bias, None) if geometry.transposed else (None, bias)
        to_x = _apply(TransposedConv, g, w, of_image, geometry, x.detach()) if _is_needed(ctx, 0) else None
        to_g = _apply(StridedConv, x, w, of_maps, geometry) if _is_needed(ctx, 1) else None
        return to_x, to_g, None, None, None


def frozen_doubling_conv(g: Maps, w: Weight) -> Image:
    """Return the transposed 4x4 convolution that doubles both sides, of a weight that needs no gradient."""
    if _is_bf16_on_cpu(g) and w.numel() >= MIN_WEIGHTS_FOR_MATMUL:
        return _apply(TransposedConv, g, w, None, Geometry(*HALVING, transposed=True), None)
    return conv_transpose2d(g, w, stride=2, padding=1)


def strided_conv(x: Image, w: Weight, bias: Bias | None, geometry: Geometry) -> Maps:
    if _has_product_form(w, geometry) and w.numel() >= MIN_WEIGHTS_FOR_MATMUL and x.shape[3] // 2 <= MAX_ROW_FOR_MATMUL:
        return _add_bias(strided_conv_by_product(x, w), bias)
    x, w = _contiguous_on_metal(x, w)
    return conv2d(x, w, bias, geometry.stride, geometry.padding, geometry.dilation, geometry.groups)


def transposed_conv(g: Maps, w: Weight, bias: Bias | None, geometry: Geometry, like: Image | None) -> Image:
    if _has_product_form(w, geometry) and w.numel() >= MIN_WEIGHTS_FOR_MATMUL and g.shape[3] <= MAX_ROW_FOR_MATMUL:
        return _add_bias(transposed_conv_by_product(g, w), bias)
    g, w = _contiguous_on_metal(g, w)
    sizes = (geometry.stride, geometry.padding)
    if like is None or bias is not None:
        return conv_transpose2d(g, w, bias, *sizes, geometry.output_padding, geometry.groups, geometry.dilation)
    # oneDNN computes the same numbers faster as a gradient.
    more = (geometry.dilation, False, (0, 0), geometry.groups, (True, False, False))
    return convolution_backward(g, like, w, None, *sizes, *more)[0]


def weight_gradient(x: Image, g: Maps, with_bias: bool, geometry: Geometry, like: Weight) -> Gradients:
    x, g = _contiguous_on_metal(x, g)
    output, input, rest = (x, g, geometry.output_padding) if geometry.transposed else (g, x, (0, 0))
    few_pixels = g.numel() <= MAX_PIXELS_PER_CHANNEL * g.shape[1] ** 2
    if _has_product_form(like, geometry) and like.numel() >= MIN_WEIGHTS_FOR_GRADIENT_MATMUL and few_pixels:
        return weight_gradient_by_product(x, g), output.sum((0, 2, 3)) if with_bias else None
    sizes = (geometry.stride, geometry.padding, geometry.dilation)
    more = (geometry.transposed, rest, geometry.groups, (False, True, with_bias))
    bias_size = [output.shape[1]] if with_bias else None
    _, to_weight, to_bias = convolution_backward(output, input, like, bias_size, *sizes, *more)
    return to_weight, to_bias


def strided_conv_by_product(x: Image, w: Weight) -> Maps:
    """Return every 4x4 window of x times the weights: one matrix product."""
    batch, _, height, width = x.shape
    return (
        (_unfold_windows(x) @ _channels_last_rows(w, len(w)).t())
        .view(batch, height // 2, width // 2, len(w))
        .permute(0, 3, 1, 2)
    )


def transposed_conv_by_product(g: Maps, w: Weight) -> Image:
    """Return the sum of the 4x4 windows that the pixels of g contribute to: one matrix product, then four additions."""
    (batch, wide, height, width), narrow = g.shape, w.shape[1]
    spread = (_flatten_pixels(g) @ _channels_last_rows(w, wide)).view(batch, height, width, 4, 4, narrow)
    padded = spread.new_zeros(batch, 2 * height + 2, 2 * width + 2, narrow)
    # A window has 2x2 pairs of pixels. It overlaps its neighbors by whole pairs.
    pairs = padded.view(batch, height + 1, 2, width + 1, 2, narrow)
    for down in (0, 1):
        for right in (0, 1):
            part = spread[:, :, :, 2 * down : 2 * down + 2, 2 * right : 2 * right + 2]
            pairs[:, down : height + down, :, right : width + right] += part.transpose(2, 3)
    return padded[:, 1:-1, 1:-1].contiguous().permute(0, 3, 1, 2)


def weight_gradient_by_product(x: Image, g: Maps) -> Weight:
    """Return the pixels of g times the matching windows of x: one matrix product over all pixels."""
    return (_flatten_pixels(g).t() @ _unfold_windows(x)).view(g.shape[1], 4, 4, x.shape[1]).permute(0, 3, 1, 2)


def _unfold_windows(x: Image) -> Float[Tensor, "pixels sixteen_channels"]:
    """Return the 4x4 window around each pixel of the halved image: one row per pixel, channels innermost."""
    padded = pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    batch, height, width, channels = padded.shape
    along_batch, down, right, deep = padded.stride()
    shape = (batch, height // 2 - 1, width // 2 - 1, 4, 4, channels)
    strides = (along_batch, 2 * down, 2 * right, down, right, deep)
    return padded.as_strided(shape, strides).reshape(-1, 16 * channels)


def _flatten_pixels(images: Tensor) -> Tensor:
    """Return one row of channels per pixel. For channels-last images this is a view."""
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1])


def _channels_last_rows(tensor: Tensor, count: int) -> Tensor:
    """Return `count` rows in channels-last order. For a channels-last tensor this is a view."""
    return tensor.permute(0, 2, 3, 1).reshape(count, -1)


def _add_bias(images: Tensor, bias: Tensor | None) -> Tensor:
    return images if bias is None else images + bias[:, None, None]


def _layer_geometry(layer: nn.Conv2d | nn.ConvTranspose2d, padding: Sequence[int], rest: Sequence[int]) -> Geometry:
    pairs = ((height, width) for height, width in (layer.stride, padding, layer.dilation, rest))
    stride, padding, dilation, output_padding = pairs
    return Geometry(stride, padding, dilation, layer.groups, output_padding, isinstance(layer, nn.ConvTranspose2d))


def _has_product_form(weight: Tensor, geometry: Geometry) -> bool:
    sizes = (geometry.stride, geometry.padding, geometry.dilation, geometry.groups, geometry.output_padding)
    return _is_bf16_on_cpu(weight) and tuple(weight.shape[2:]) == (4, 4) and sizes == HALVING


def _apply(function: type[Function], *inputs: Any) -> Any:
    """Apply an autograd function. With autograd off, call its implementation, with a third of the Python overhead."""
    if torch.is_grad_enabled():
        return function.apply(*inputs)
    return DIRECT[function](*inputs)


def _weight_and_bias_gradients(ctx: Any, x: Image, g: Maps, w: Weight) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of a convolution's weight and bias, or None for both if neither is needed."""
    with_bias = ctx.needs_input_grad[2]
    if not (_is_needed(ctx, 1) or (with_bias and _is_needed(ctx, 2))):
        return None, None
    return _apply(WeightGradient, x, g, with_bias, ctx.geometry, w.detach())


def _is_needed(ctx: Any, index: int) -> bool:
    """Return whether this backward pass continues to the argument with this index.

    `ctx.needs_input_grad` says only that the argument requires a gradient. A gradient penalty first computes D's
    gradient with respect to the images only. Without this check, each layer would also compute its weight gradient.
    """
    if not ctx.needs_input_grad[index]:
        return False
    try:
        return torch._C._will_engine_execute_node(ctx.next_functions[index][0])
    except RuntimeError:  # PyTorch raises this for a leaf that is an input of `torch.autograd.grad`
        return True


def _not_leaf(weight: Tensor) -> Tensor:
    """Return an alias of the weight, which is not a leaf of the graph. `_is_needed` then avoids an exception (25 us).

    `view_as` does not work: it loses the channels-last strides of a weight with one channel.
    """
    return torch.ops.aten.alias(weight)


def _use_explicit_gradients(
    layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor, weight: Tensor, bias: Tensor | None
) -> bool:
    """Return whether a layer uses the three functions of this module instead of PyTorch's own operation.

    On a CPU, PyTorch's double backward is slow only for 1x1 kernels and for groups. For other layers the Python
    overhead of these functions costs more than they gain (docs/lab-book.md, "Second gradients of convolutions").
    Exported graphs contain PyTorch's operations.
    """
    if torch.compiler.is_compiling():
        return False
    if _is_bf16_on_cpu(x) and tuple(weight.shape[2:]) == (4, 4) and weight.numel() >= MIN_WEIGHTS_FOR_GRADIENT_MATMUL:
        return True
    with_gradient = x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    slow_in_pytorch = x.device.type != "cpu" or layer.groups > 1 or tuple(weight.shape[2:]) == (1, 1)
    return torch.is_grad_enabled() and with_gradient and slow_in_pytorch


def _is_dense(layer: nn.Conv2d | nn.ConvTranspose2d, padding: tuple[int, ...]) -> bool:
    """Return whether the layer has no stride, padding, dilation or groups."""
    return (layer.stride, padding, layer.dilation, layer.groups) == ((1, 1), (0, 0), (1, 1), 1)


def autocast_dtype(x: Tensor) -> torch.dtype:
    """Return the type in which autocast has networks compute with x: its own type without autocast, and float64."""
    return torch.get_autocast_dtype(x.device.type) if _uses_autocast(x) else x.dtype


def _autocast(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the tensors in autocast's dtype if autocast is on, as PyTorch's own layers do. float64 stays."""
    if not _uses_autocast(x):
        return x, weight, bias
    dtype = torch.get_autocast_dtype(x.device.type)
    return x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def _uses_autocast(x: Tensor) -> bool:
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind) and x.dtype != torch.float64


def _contiguous_on_metal(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors, contiguous on Metal, whose convolutions ignore strides (`hardware/metal.py`)."""
    return tuple(tensor.contiguous() for tensor in tensors) if is_metal(tensors[0].device) else tensors


def _is_bf16_on_cpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype == torch.bfloat16


DIRECT: dict[type[Function], Callable[..., Any]] = {
    StridedConv: strided_conv,
    TransposedConv: transposed_conv,
    WeightGradient: weight_gradient,
}
