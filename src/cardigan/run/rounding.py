"""Weights in fewer bits, as they are stored: half precision, or whole numbers of eight bits with a scale for each output channel.

Knows how a tensor is rounded and brought back; networks always compute in fp32.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Literal, TypeAlias, TypeVar, get_args

import torch
from torch import Tensor, nn

from cardigan.errors import CardiganError, unknown

Weights: TypeAlias = Literal["float32", "float16", "int8"]
SCALE = "::scale"
"""What the name of an int8 tensor's scales ends in."""
LARGEST = 127
"""Whole numbers are from -127 to 127, so that 0 stays 0 and signs are alike."""

Network = TypeVar("Network", bound=nn.Module)


def check_weights(weights: str) -> None:
    if weights not in get_args(Weights):
        raise unknown("kind of weights", weights, get_args(Weights))


def stored(network: nn.Module, weights: Weights) -> dict[str, Tensor]:
    """Return a network's state as it is stored.

    `float16` halves what has two or more axes; `int8` makes the weights of convolutions and linear layers whole numbers, symmetric, each output
    channel in units of its own, stored beside them as NAME::scale. All else stays as it is. Raises CardiganError for weights that do not fit.
    """
    tensors = network.state_dict()
    if weights == "float32":
        return tensors
    axes = output_axes(network)
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if weights == "float16" and tensor.is_floating_point() and tensor.dim() >= 2:
            found[name] = _halved(name, tensor)
        elif weights == "int8" and name in axes:
            found[name], found[name + SCALE] = in_whole_numbers(name, tensor, axes[name])
        else:
            found[name] = tensor
    return found


def restored(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return stored tensors in fp32 again; raises ValueError for any that are not the expected ones, before memory is taken for them."""
    scales = {name for name in tensors if name.removesuffix(SCALE) in expected and name.endswith(SCALE)}
    if tensors.keys() - scales != expected.keys():
        raise ValueError("other names")
    for name, like in expected.items():
        _check(tensors[name], like, tensors.get(name + SCALE))
    return {name: _restored(tensors[name], like, tensors.get(name + SCALE)) for name, like in expected.items()}


def rounded(network: Network, weights: Weights) -> Network:
    """Return a copy of a network whose weights are those that would be read back."""
    copy = deepcopy(network)
    expected = copy.state_dict()
    copy.load_state_dict(restored(stored(network, weights), expected))
    return copy


def output_axes(network: nn.Module) -> dict[str, int]:
    """Return the names of the weights of convolutions and linear layers, with the axis that counts their output channels."""
    found, names = {}, network.state_dict().keys()
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            axis = 1 if isinstance(module, nn.ConvTranspose2d) else 0
            found |= {f"{name}.weight": axis, f"{name}.parametrizations.weight.original": axis}
    return {name: axis for name, axis in found.items() if name in names}


def in_whole_numbers(name: str, weight: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return int8 numbers and the scales, of the same number of axes, whose product is nearest to the weight."""
    others = [other for other in range(weight.dim()) if other != axis]
    scale = weight.abs().amax(dim=others, keepdim=True) / LARGEST
    if not bool(torch.isfinite(scale).all()):
        raise CardiganError(f"{name} holds numbers that are infinite or none, so the weights cannot be rounded: take an earlier checkpoint.")
    scale = torch.where(scale < torch.finfo(torch.float32).tiny, torch.ones_like(scale), scale)
    return (weight / scale).round().clamp(-LARGEST, LARGEST).to(torch.int8), scale


def _halved(name: str, tensor: Tensor) -> Tensor:
    half = tensor.to(torch.float16)
    if not bool(torch.isfinite(half).all()):
        raise CardiganError(f"{name} holds numbers that half precision cannot (beyond 65,504): keep --weights float32.")
    return half


def _check(tensor: Tensor, like: Tensor, scale: Tensor | None) -> None:
    kinds = {like.dtype} | ({torch.float16, torch.int8} if like.dtype == torch.float32 and like.dim() >= 2 else set())
    if tensor.shape != like.shape or tensor.dtype not in kinds or (scale is not None) != (tensor.dtype == torch.int8 != like.dtype):
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} and type {tensor.dtype}")
    if scale is not None:
        fits = scale.dim() == like.dim() and all(side in (1, whole) for side, whole in zip(scale.shape, like.shape, strict=True))
        if not fits or scale.dtype != torch.float32:
            raise ValueError(f"scales of shape {tuple(scale.shape)} and type {scale.dtype}")


def _restored(tensor: Tensor, like: Tensor, scale: Tensor | None) -> Tensor:
    return tensor.to(like.dtype) if scale is None else tensor.to(torch.float32) * scale
