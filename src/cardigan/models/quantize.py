"""Weights in fewer bits, as they are stored: half precision, or whole numbers of eight bits with a scale for each output channel.

Knows how a tensor is rounded and brought back; networks always compute in fp32.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Literal, TypeAlias, TypeVar, get_args

import torch
from torch import Tensor, nn

from cardigan.errors import CardiganError, unknown

WeightsDtype: TypeAlias = Literal["float32", "float16", "int8"]
SCALE_SUFFIX = "::scale"
"""What the name of an int8 tensor's scales ends in."""
INT8_MAX = 127
"""Whole numbers are from -127 to 127, so that 0 stays 0 and signs are alike."""

Network = TypeVar("Network", bound=nn.Module)


def check_weights_dtype(dtype: str) -> None:
    if dtype not in get_args(WeightsDtype):
        raise unknown("kind of weights", dtype, get_args(WeightsDtype))


def quantize_state(network: nn.Module, dtype: WeightsDtype) -> dict[str, Tensor]:
    """Return a network's state as it is stored.

    `float16` halves what has two or more axes; `int8` makes the weights of convolutions and linear layers whole numbers, symmetric, each output
    channel in units of its own, stored beside them as NAME::scale. All else stays as it is. Raises CardiganError for weights that do not fit.
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
    """Return stored tensors in fp32 again; raises ValueError for any that are not the expected ones, before memory is taken for them."""
    scales = {name for name in tensors if name.removesuffix(SCALE_SUFFIX) in expected and name.endswith(SCALE_SUFFIX)}
    if tensors.keys() - scales != expected.keys():
        raise ValueError("other names")
    for name, expected_tensor in expected.items():
        _check_tensor(tensors[name], expected_tensor, tensors.get(name + SCALE_SUFFIX))
    return {name: _dequantize(tensors[name], like, tensors.get(name + SCALE_SUFFIX)) for name, like in expected.items()}


def fake_quantize(network: Network, dtype: WeightsDtype) -> Network:
    """Return a copy of a network whose weights are those that would be read back."""
    copy = deepcopy(network)
    expected = copy.state_dict()
    copy.load_state_dict(dequantize_state(quantize_state(network, dtype), expected))
    return copy


def output_channel_axes(network: nn.Module) -> dict[str, int]:
    """Return the names of the weights of convolutions and linear layers, with the axis that counts their output channels."""
    found, names = {}, network.state_dict().keys()
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            axis = 1 if isinstance(module, nn.ConvTranspose2d) else 0
            found |= {f"{name}.weight": axis, f"{name}.parametrizations.weight.original": axis}
    return {name: axis for name, axis in found.items() if name in names}


def quantize_int8(name: str, weight: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return int8 numbers and the scales, of the same number of axes, whose product is nearest to the weight."""
    others = [other for other in range(weight.dim()) if other != axis]
    scale = weight.abs().amax(dim=others, keepdim=True) / INT8_MAX
    if not bool(torch.isfinite(scale).all()):
        raise CardiganError(
            f"{name} holds numbers that are infinite or none, so the weights cannot be rounded: take an earlier checkpoint."
        )
    scale = torch.where(scale < torch.finfo(torch.float32).tiny, torch.ones_like(scale), scale)
    return (weight / scale).round().clamp(-INT8_MAX, INT8_MAX).to(torch.int8), scale


def _to_float16(name: str, tensor: Tensor) -> Tensor:
    half = tensor.to(torch.float16)
    if not bool(torch.isfinite(half).all()):
        raise CardiganError(f"{name} holds numbers that half precision cannot (beyond 65,504): keep --weights float32.")
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
