"""A generator as a list of operations and their tensors, which a page can run without PyTorch.

Value 0 is z; value n is the output of operation n - 1. Shapes are per image, without the batch axis.

| kind | output | settings | tensors |
|---|---|---|---|
| constant | the same values for every image | | values |
| embedding | sum of the table's rows, weighted by each image's class weights | | table [classes, ...] |
| linear | W x + b along the last axis | | weight [out, in], bias |
| conv2d | as `torch.nn.functional.conv2d` | stride, padding, groups | weight, bias |
| conv_transpose2d | as `conv_transpose2d` | stride, padding, output_padding | weight, bias |
| channel_affine | each channel times its scale, plus its shift | | scale, shift |
| leaky_relu | x if x > 0, else negative_slope * x | negative_slope | |
| tanh, sigmoid, softmax | softmax along the last axis | | |
| upsample_nearest | nearest-neighbor resize | | |
| avg_pool2d, max_pool2d | pooling over non-overlapping windows | kernel_size | |
| add, multiply | two values, broadcast | | |
| scalar_affine | factor * x + offset | factor, offset | |
| concatenate, slice | along an axis | axis; start | |
| reshape, transpose, matmul | transpose swaps the last two axes | | |
"""

import dataclasses
from dataclasses import dataclass, field

from torch import Tensor

Setting = int | float | tuple[int, int]


@dataclass(frozen=True)
class Operation:
    """One operation."""

    kind: str
    inputs: tuple[int, ...]
    """Indices of the input values."""
    shape: tuple[int, ...]
    """Output shape, without the batch axis."""
    settings: dict[str, Setting] = field(default_factory=dict)
    tensors: tuple[int | None, ...] = ()
    """Indices of the tensors, in the order of the table above; None for a missing bias."""


@dataclass(frozen=True)
class Program:
    """A generator. The last operation outputs the image."""

    operations: tuple[Operation, ...]
    tensors: tuple[Tensor, ...]
    latent_size: int
    classes: int


def fold_affine(program: Program) -> Program:
    """Fold every `channel_affine` into the convolution directly before it, if nothing else reads that output."""
    value_uses = [number for operation in program.operations for number in operation.inputs]
    tensors, operations, new_positions = list(program.tensors), [], {0: 0}
    for number, step in enumerate(program.operations, start=1):
        position = new_positions[step.inputs[0]] if step.kind == "channel_affine" else 0
        # None if other operations lie in between.
        previous = operations[-1] if position and position == len(operations) else None
        if (
            previous is not None
            and previous.kind in {"conv2d", "conv_transpose2d"}
            and value_uses.count(step.inputs[0]) == 1
        ):
            scale, shift = (tensors[tensor] for tensor in step.tensors if tensor is not None)
            weight, bias = previous.tensors
            assert weight is not None
            axis = 0 if previous.kind == "conv2d" else 1
            tensors += [
                tensors[weight] * scale.view([-1 if dim == axis else 1 for dim in range(4)]),
                shift if bias is None else tensors[bias] * scale + shift,
            ]
            operations[-1] = dataclasses.replace(previous, tensors=(len(tensors) - 2, len(tensors) - 1))
            new_positions[number] = len(operations)
        else:
            operations.append(dataclasses.replace(step, inputs=tuple(new_positions[value] for value in step.inputs)))
            new_positions[number] = len(operations)
    return _without_unused_tensors(dataclasses.replace(program, operations=tuple(operations), tensors=tuple(tensors)))


def _without_unused_tensors(program: Program) -> Program:
    used = sorted({tensor for operation in program.operations for tensor in operation.tensors if tensor is not None})
    new_indices = {tensor: index for index, tensor in enumerate(used)}
    operations = (
        dataclasses.replace(
            step, tensors=tuple(None if tensor is None else new_indices[tensor] for tensor in step.tensors)
        )
        for step in program.operations
    )
    return dataclasses.replace(
        program, operations=tuple(operations), tensors=tuple(program.tensors[tensor] for tensor in used)
    )
