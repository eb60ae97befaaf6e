"""A generator as a short list of steps and the tensors they use: what a page can run without PyTorch. Does not know where it came from.

Value 0 is z; value n is what step n - 1 gives. Shapes are of one picture: every value has one such block for each picture of a batch.

| kind | gives | settings | tensors |
|---|---|---|---|
| constant | the same numbers for every picture | | values |
| rows | the table's rows, mixed by each picture's class weights | | table [classes, ...] |
| linear | W x + b along the last axis | | weight [out, in], bias |
| convolution | as `torch.nn.functional.conv2d` | stride, padding, groups | weight, bias |
| spread | as `conv_transpose2d` | stride, padding, output_padding | weight, bias |
| affine | each channel times its scale, plus its shift | | scale, shift |
| leaky | x, or slope x where that is negative | slope | |
| tanh, sigmoid, softmax | softmax along the last axis | | |
| nearest | the nearest pixel at another size | | |
| average, largest | of windows that do not overlap | window | |
| add, multiply | two values, broadcast | | |
| scale | factor x + offset | factor, offset | |
| concatenate, slice | along an axis | axis; start | |
| reshape, transpose, matmul | transpose exchanges the last two axes | | |
"""

import dataclasses
from dataclasses import dataclass, field

from torch import Tensor

Setting = int | float | tuple[int, int]


@dataclass(frozen=True)
class Step:
    """One operation."""

    kind: str
    inputs: tuple[int, ...]
    """Numbers of the values it reads."""
    shape: tuple[int, ...]
    """Of what it gives, for one picture."""
    settings: dict[str, Setting] = field(default_factory=dict)
    tensors: tuple[int | None, ...] = ()
    """Numbers of the tensors it uses, in the table's order; None for a bias that is not there."""


@dataclass(frozen=True)
class Program:
    """A generator; the last step gives the picture."""

    steps: tuple[Step, ...]
    tensors: tuple[Tensor, ...]
    latent_size: int
    classes: int


def folded(program: Program) -> Program:
    """Return the program with every `affine` taken into the convolution right before it, where nothing else reads that."""
    uses = [number for step in program.steps for number in step.inputs]
    tensors, steps, places = list(program.tensors), [], {0: 0}
    for number, step in enumerate(program.steps, start=1):
        place = places[step.inputs[0]] if step.kind == "affine" else 0
        before = steps[-1] if place and place == len(steps) else None  # none where other steps lie between
        if before is not None and before.kind in {"convolution", "spread"} and uses.count(step.inputs[0]) == 1:
            scale, shift = (tensors[tensor] for tensor in step.tensors if tensor is not None)
            weight, bias = before.tensors
            assert weight is not None
            axis = 0 if before.kind == "convolution" else 1
            tensors += [
                tensors[weight] * scale.view([-1 if at == axis else 1 for at in range(4)]),
                shift if bias is None else tensors[bias] * scale + shift,
            ]
            steps[-1] = dataclasses.replace(before, tensors=(len(tensors) - 2, len(tensors) - 1))
            places[number] = len(steps)
        else:
            steps.append(dataclasses.replace(step, inputs=tuple(places[value] for value in step.inputs)))
            places[number] = len(steps)
    return _without_unused(dataclasses.replace(program, steps=tuple(steps), tensors=tuple(tensors)))


def _without_unused(program: Program) -> Program:
    used = sorted({tensor for step in program.steps for tensor in step.tensors if tensor is not None})
    places = {tensor: place for place, tensor in enumerate(used)}
    steps = (
        dataclasses.replace(step, tensors=tuple(None if tensor is None else places[tensor] for tensor in step.tensors)) for step in program.steps
    )
    return dataclasses.replace(program, steps=tuple(steps), tensors=tuple(program.tensors[tensor] for tensor in used))
