"""Runs a Program in PyTorch, one operation at a time. Reference for the page's engine."""

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
    """Return the program's images of z; `classes` has a row of class weights per image, usually one-hot."""
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
    "linear": lambda step, inputs, tensors: linear(inputs[0], tensors[0], tensors[1]),
    "conv2d": lambda step, inputs, tensors: conv2d(
        inputs[0],
        *tensors,
        stride=setting(step, "stride"),
        padding=setting(step, "padding"),
        groups=setting(step, "groups"),
    ),
    "conv_transpose2d": lambda step, inputs, tensors: conv_transpose2d(
        inputs[0],
        *tensors,
        stride=setting(step, "stride"),
        padding=setting(step, "padding"),
        output_padding=setting(step, "output_padding"),
    ),
    "channel_affine": lambda step, inputs, tensors: inputs[0] * tensors[0][:, None, None] + tensors[1][:, None, None],
    "leaky_relu": lambda step, inputs, tensors: leaky_relu(inputs[0], setting(step, "negative_slope")),
    "tanh": lambda step, inputs, tensors: inputs[0].tanh(),
    "sigmoid": lambda step, inputs, tensors: inputs[0].sigmoid(),
    "softmax": lambda step, inputs, tensors: inputs[0].softmax(-1),
    "upsample_nearest": lambda step, inputs, tensors: interpolate(inputs[0], size=step.shape[1:], mode="nearest"),
    "avg_pool2d": lambda step, inputs, tensors: avg_pool2d(inputs[0], setting(step, "kernel_size")),
    "max_pool2d": lambda step, inputs, tensors: max_pool2d(inputs[0], setting(step, "kernel_size")),
    "add": lambda step, inputs, tensors: prepend_axes(inputs[0], step) + prepend_axes(inputs[1], step),
    "multiply": lambda step, inputs, tensors: prepend_axes(inputs[0], step) * prepend_axes(inputs[1], step),
    "scalar_affine": lambda step, inputs, tensors: inputs[0] * setting(step, "factor") + setting(step, "offset"),
    "concatenate": lambda step, inputs, tensors: torch.cat(inputs, dim=setting(step, "axis") + 1),
    "slice": lambda step, inputs, tensors: inputs[0].narrow(
        setting(step, "axis") + 1, setting(step, "start"), step.shape[setting(step, "axis")]
    ),
    "reshape": lambda step, inputs, tensors: inputs[0].reshape(-1, *step.shape),
    "transpose": lambda step, inputs, tensors: inputs[0].transpose(-1, -2),
    "matmul": lambda step, inputs, tensors: inputs[0] @ inputs[1],
}


def setting(operation: Operation, name: str) -> Any:
    return operation.settings[name]


def prepend_axes(x: Tensor, operation: Operation) -> Tensor:
    """Return x with size-1 axes inserted after the batch axis, to the operation's number of axes."""
    return x.reshape(len(x), *[1] * (len(operation.shape) + 1 - x.dim()), *x.shape[1:])
