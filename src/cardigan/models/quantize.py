"""Quantize stored weights: float16, or int8 with a scale per output channel.

Networks always compute in fp32; only files hold quantized weights.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Literal, TypeAlias, TypeVar, get_args

import torch
from torch import Tensor, nn

from cardigan.errors import CardiganError, unknown

WeightsDtype: TypeAlias = Literal["float32", "float16", "int8"]
SCALE_SUFFIX = "::scale"
"""Name suffix of an int8 tensor's scales."""
INT8_MAX = 127
"""The range is symmetric, -127 to 127, so 0 stays exactly 0."""

Network = TypeVar("Network", bound=nn.Module)


def check_weights_dtype(dtype: str) -> None:
    if dtype not in get_args(WeightsDtype):
        raise unknown("kind of weights", dtype, get_args(WeightsDtype))


def quantize_state(network: nn.Module, dtype: WeightsDtype) -> dict[str, Tensor]:
    """Return a network's state dict as it is stored.

    `float16` converts tensors with two or more axes. `int8` quantizes the weights of convolutions and linear layers
    symmetrically, with one scale per output channel stored as NAME::scale. Other tensors are unchanged. Raises
    CardiganError for weights out of range.
    """
    tensors = network.state_dict()
    if dtype == "float32":
        return tensors
    axes = output_channel_axes(network)
    quantized: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if dtype == "float16" and tensor.is_floating_point() and tensor.dim() >= 2:
            quantized[name] = _to_float16(name, tensor)
        elif dtype == "int8" and name in axes:
            quantized[name], quantized[name + SCALE_SUFFIX] = quantize_int8(name, tensor, axes[name])
        else:
            quantized[name] = tensor
    return quantized


def dequantize_state(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return stored tensors as fp32. Raises ValueError for unexpected tensors before allocating memory for them."""
    scales = {name for name in tensors if name.removesuffix(SCALE_SUFFIX) in expected and name.endswith(SCALE_SUFFIX)}
    if tensors.keys() - scales != expected.keys():
        raise ValueError("unexpected names")
    for name, expected_tensor in expected.items():
        _check_tensor(tensors[name], expected_tensor, tensors.get(name + SCALE_SUFFIX))
    return {name: _dequantize(tensors[name], like, tensors.get(name + SCALE_SUFFIX)) for name, like in expected.items()}


def fake_quantize(network: Network, dtype: WeightsDtype) -> Network:
    """Return a copy of a network with quantized and dequantized weights."""
    copy = deepcopy(network)
    expected = copy.state_dict()
    copy.load_state_dict(dequantize_state(quantize_state(network, dtype), expected))
    return copy


def output_channel_axes(network: nn.Module) -> dict[str, int]:
    """Return the output channel axis of each convolution and linear weight, by name."""
    found, names = {}, network.state_dict().keys()
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            axis = 1 if isinstance(module, nn.ConvTranspose2d) else 0
            found |= {f"{name}.weight": axis, f"{name}.parametrizations.weight.original": axis}
    return {name: axis for name, axis in found.items() if name in names}


def quantize_int8(name: str, weight: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return the int8 weight and its scales, which have the same number of axes."""
    others = [other for other in range(weight.dim()) if other != axis]
    scale = weight.abs().amax(dim=others, keepdim=True) / INT8_MAX
    if not bool(torch.isfinite(scale).all()):
        raise CardiganError(f"{name} has infinite or NaN values, so it cannot be quantized: use an earlier checkpoint.")
    scale = torch.where(scale < torch.finfo(torch.float32).tiny, torch.ones_like(scale), scale)
    return (weight / scale).round().clamp(-INT8_MAX, INT8_MAX).to(torch.int8), scale


def _to_float16(name: str, tensor: Tensor) -> Tensor:
    half = tensor.to(torch.float16)
    if not bool(torch.isfinite(half).all()):
        raise CardiganError(f"{name} has values beyond 65,504, the limit of float16: keep --weights float32.")
    return half


def _check_tensor(tensor: Tensor, expected_tensor: Tensor, scale: Tensor | None) -> None:
    dtypes = {expected_tensor.dtype} | (
        {torch.float16, torch.int8} if expected_tensor.dtype == torch.float32 and expected_tensor.dim() >= 2 else set()
    )
    if (
        tensor.shape != expected_tensor.shape
        or tensor.dtype not in dtypes
        or (scale is not None) != (tensor.dtype == torch.int8 != expected_tensor.dtype)
    ):
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} and type {tensor.dtype}")
    if scale is not None:
        fits = scale.dim() == expected_tensor.dim() and all(
            side in (1, size) for side, size in zip(scale.shape, expected_tensor.shape, strict=True)
        )
        if not fits or scale.dtype != torch.float32:
            raise ValueError(f"scales of shape {tuple(scale.shape)} and type {scale.dtype}")


def _dequantize(tensor: Tensor, expected_tensor: Tensor, scale: Tensor | None) -> Tensor:
    return tensor.to(expected_tensor.dtype) if scale is None else tensor.to(torch.float32) * scale
