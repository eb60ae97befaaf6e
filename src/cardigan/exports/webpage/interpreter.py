"""Runs a Program in PyTorch, a step at a time: what a page's own engine is checked against."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d, interpolate, leaky_relu, linear, max_pool2d

from cardigan.exports.webpage.program import Operation, Program
from cardigan.shapes import Images, Latents

ClassWeights = Float[Tensor, "batch classes"]


@torch.no_grad()
def run_program(program: Program, z: Latents, classes: ClassWeights | None = None) -> Images:
    """Return the program's pictures of z; `classes` is a row of weights for each picture, 1 for its class and 0 for the others."""
    values: list[Any] = [z]
    for operation in program.operations:
        tensors = [None if tensor is None else program.tensors[tensor] for tensor in operation.tensors]
        if operation.kind == "embedding":
            assert classes is not None and tensors[0] is not None
            values.append(torch.tensordot(classes, tensors[0], dims=1))
        elif operation.kind == "constant":
            assert tensors[0] is not None
            values.append(tensors[0].expand(len(z), *operation.shape))
        else:
            values.append(
                OPERATIONS[operation.kind](
                    operation, [values[value_index] for value_index in operation.inputs], tensors
                )
            )
        assert values[-1].shape == (len(z), *operation.shape), operation
    return values[-1]


OPERATIONS: dict[str, Callable[[Operation, Any, Any], Tensor]] = {
    "linear": lambda step, given, own: linear(given[0], own[0], own[1]),
    "conv2d": lambda step, given, own: conv2d(
        given[0], *own, stride=setting(step, "stride"), padding=setting(step, "padding"), groups=setting(step, "groups")
    ),
    "conv_transpose2d": lambda step, given, own: conv_transpose2d(
        given[0],
        *own,
        stride=setting(step, "stride"),
        padding=setting(step, "padding"),
        output_padding=setting(step, "output_padding"),
    ),
    "channel_affine": lambda step, given, own: given[0] * own[0][:, None, None] + own[1][:, None, None],
    "leaky_relu": lambda step, given, own: leaky_relu(given[0], setting(step, "negative_slope")),
    "tanh": lambda step, given, own: given[0].tanh(),
    "sigmoid": lambda step, given, own: given[0].sigmoid(),
    "softmax": lambda step, given, own: given[0].softmax(-1),
    "upsample_nearest": lambda step, given, own: interpolate(given[0], size=step.shape[1:], mode="nearest"),
    "avg_pool2d": lambda step, given, own: avg_pool2d(given[0], setting(step, "kernel_size")),
    "max_pool2d": lambda step, given, own: max_pool2d(given[0], setting(step, "kernel_size")),
    "add": lambda step, given, own: prepend_axes(given[0], step) + prepend_axes(given[1], step),
    "multiply": lambda step, given, own: prepend_axes(given[0], step) * prepend_axes(given[1], step),
    "scalar_affine": lambda step, given, own: given[0] * setting(step, "factor") + setting(step, "offset"),
    "concatenate": lambda step, given, own: torch.cat(given, dim=setting(step, "axis") + 1),
    "slice": lambda step, given, own: given[0].narrow(
        setting(step, "axis") + 1, setting(step, "start"), step.shape[setting(step, "axis")]
    ),
    "reshape": lambda step, given, own: given[0].reshape(-1, *step.shape),
    "transpose": lambda step, given, own: given[0].transpose(-1, -2),
    "matmul": lambda step, given, own: given[0] @ given[1],
}


def setting(operation: Operation, name: str) -> Any:
    return operation.settings[name]


def prepend_axes(x: Tensor, operation: Operation) -> Tensor:
    """Return x with the axes that its picture lacks put before the others."""
    return x.reshape(len(x), *[1] * (len(operation.shape) + 1 - x.dim()), *x.shape[1:])
