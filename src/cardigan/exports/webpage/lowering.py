"""Traces a generator's PyTorch operations and lowers them to a Program.

Works for any network whose operations are in LOWERINGS. Values that depend only on weights (such as spectral
normalization) are computed during tracing. Values that depend on the class become a table with a row per class.
Operations on values that depend on z are recorded.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from cardigan.errors import CardiganError
from cardigan.exports.webpage.program import Operation, Program, Setting, fold_affine
from cardigan.nets.interface import Generator

aten = torch.ops.aten
TRACE_BATCH_SIZE = 2
"""Batch size of the traced pass of an unconditional generator. z is on the meta device, so it costs nothing."""


@torch.no_grad()
def lower_generator(generator: Generator, latent_size: int, classes: int) -> Program:
    """Return the program of a generator in evaluation mode; raises CardiganError for an unsupported operation."""
    batch_size = classes or TRACE_BATCH_SIZE
    labels = torch.arange(classes, device=next(generator.parameters()).device) if classes else None
    z = torch.zeros(batch_size, latent_size, device="meta")
    recorder = OperationRecorder(z, labels)
    with ExitStack() as hooks:
        for name, module in generator.named_modules():
            hooks.callback(
                module.register_forward_pre_hook(recorder.push_module(name or type(generator).__name__)).remove
            )
            hooks.callback(module.register_forward_hook(recorder.pop_module).remove)
        with recorder:
            images = generator(z, labels)
    if recorder.value_indices.get(id(images)) != len(recorder.operations):
        raise CardiganError(
            "This generator's last operation does not output its image, so a page cannot run it: export as onnx or pt2."
        )
    return fold_affine(Program(tuple(recorder.operations), tuple(recorder.tensors), latent_size, classes))


class OperationRecorder(TorchDispatchMode):
    """Intercepts every operation of a pass: computes those that do not depend on z, records those that do."""

    def __init__(self, z: Tensor, labels: Tensor | None) -> None:
        super().__init__()
        self.batch_size = len(z)
        self.operations: list[Operation] = []
        self.tensors: list[Tensor] = []
        self.value_indices: dict[int, int] = {id(z): 0}
        """Value index by tensor id."""
        self.class_tensor_ids = set() if labels is None else {id(labels)}
        self.live_tensors: list[Any] = [z, labels]  # keeps tensors alive, because ids are reused
        self.module_stack: list[str] = []

    def push_module(self, name: str) -> Callable[..., None]:
        return lambda module, inputs: self.module_stack.append(f"{type(module).__name__} {name!r}")

    def pop_module(self, module: Any, inputs: Any, output: Any) -> None:
        self.module_stack.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensor_arguments = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(id(tensor) in self.value_indices for tensor in tensor_arguments):
            result = func(*args, **(kwargs or {}))
            if any(id(tensor) in self.class_tensor_ids for tensor in tensor_arguments):
                self.class_tensor_ids |= {id(leaf) for leaf in tree_leaves(result)}
            self.live_tensors.append((result, args))
            return result
        meta_arguments = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs or {}))
        result = func(*meta_arguments[0], **meta_arguments[1])
        out = result[0] if isinstance(result, tuple | list) else result
        self.value_indices[id(out)] = self._lower(func, args, kwargs or {}, out)
        self.live_tensors.append((result, args))
        if func.overloadpacket.__name__.endswith("_") and isinstance(args[0], Tensor):  # in place
            self.value_indices[id(args[0])] = self.value_indices[id(out)]
            return args[0]
        return result

    def _lower(self, func: Any, args: Any, kwargs: Any, out: Tensor) -> int:
        """Record an operation and return the index of its output value."""
        name = func.overloadpacket.__name__
        lower = LOWERINGS.get(name.removesuffix("_") if name != "_" else name)
        is_batched = out.shape[:1] == (self.batch_size,) and out.dtype == torch.float32
        value_index = lower(self, args, kwargs, out) if lower and is_batched else None
        if value_index is None:
            module_name = self.module_stack[-1] if self.module_stack else "the generator"
            raise CardiganError(
                f"A page cannot run {name!r} of {module_name} with these arguments: export this generator as onnx or "
                "pt2, or add the operation to src/cardigan/exports/webpage/lowering.py."
            )
        return value_index

    def add_operation(
        self,
        kind: str,
        inputs: tuple[int, ...],
        out: Tensor,
        tensors: tuple[Tensor | None, ...] = (),
        settings: dict[str, Setting] | None = None,
    ) -> int:
        tensor_indices = tuple(None if tensor is None else self._add_tensor(tensor) for tensor in tensors)
        self.operations.append(Operation(kind, inputs, tuple(out.shape[1:]), settings or {}, tensor_indices))
        return len(self.operations)

    def _add_tensor(self, tensor: Tensor) -> int:
        self.tensors.append(tensor.detach().float().cpu())
        return len(self.tensors) - 1

    def is_dynamic(self, tensor: Any) -> bool:
        return id(tensor) in self.value_indices or id(tensor) in self.class_tensor_ids

    def value_index(self, tensor: Tensor, num_axes: int) -> int | None:
        """Return a tensor's value index; None if it does not broadcast with `num_axes` axes.

        Records a tensor that does not depend on z as a constant or an embedding.
        """
        if id(tensor) not in self.value_indices:
            if id(tensor) in self.class_tensor_ids:
                value_index = self.add_operation("embedding", (), tensor, (tensor,))
            elif tensor.dim() == num_axes and tensor.shape[0] != 1:
                return None
            else:
                batched = tensor if tensor.dim() == num_axes else tensor[None]
                value_index = self.add_operation("constant", (), batched, (batched[0],))
            self.value_indices[id(tensor)] = value_index
            self.live_tensors.append(tensor)
        elif tensor.dim() not in {num_axes, num_axes - 1}:
            return None
        return self.value_indices[id(tensor)]


def _lower_identity(recorder: OperationRecorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
    return recorder.value_indices[id(args[0])]


def _lower_unary(kind: str) -> Callable[[OperationRecorder, Any, Any, Tensor], int | None]:
    """Return the lowering of an operation on one value without settings."""
    return lambda recorder, args, kwargs, out: recorder.add_operation(kind, (recorder.value_indices[id(args[0])],), out)


def _lower_leaky_relu(recorder: OperationRecorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
    negative_slope = args[1] if len(args) > 1 else 0.01
    return recorder.add_operation(
        "leaky_relu", (recorder.value_indices[id(args[0])],), out, settings={"negative_slope": float(negative_slope)}
    )


def _lower_relu(recorder: OperationRecorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
    return recorder.add_operation(
        "leaky_relu", (recorder.value_indices[id(args[0])],), out, settings={"negative_slope": 0.0}
    )


def _lower_linear(recorder: OperationRecorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
    """Lower x @ W and b + x @ W."""
    bias, x, weight = (None, *args) if len(args) == 2 else args[:3]
    if (
        kwargs
        or id(x) not in recorder.value_indices
        or recorder.is_dynamic(weight)
        or recorder.is_dynamic(bias)
        or (bias is not None and bias.dim() != 1)
    ):
        return None
    return recorder.add_operation("linear", (recorder.value_indices[id(x)],), out, (weight.t(), bias))


def _lower_convolution(recorder: OperationRecorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
    x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = args
    if (
        recorder.is_dynamic(weight)
        or recorder.is_dynamic(bias)
        or list(dilation) != [1, 1]
        or x.dim() != 4
        or (transposed and groups != 1)
    ):
        return None
    shared_settings: dict[str, Setting] = {"stride": _pair(stride), "padding": _pair(padding)}
    extra_settings: dict[str, Setting] = (
        {"output_padding": _pair(output_padding)} if transposed else {"groups": int(groups)}
    )
    return recorder.add_operation(
        "conv_transpose2d" if transposed else "conv2d",
        (recorder.value_indices[id(x)],),
        out,
        (weight, bias),
        {**shared_settings, **extra_settings},
    )


def _lower_batch_norm(recorder: OperationRecorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
    x, weight, bias, mean, variance = args[:5]
    eps = args[-1]
    # With batch statistics an image would depend on the others in its batch.
    if mean is None or variance is None or args[5] is True or x.dim() != 4:
        return None
    scale = (variance + eps).rsqrt() * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - mean * scale
    return recorder.add_operation("channel_affine", (recorder.value_indices[id(x)],), out, (scale, shift))


def _lower_binary(kind: str, sign: float = 1.0) -> Callable[[OperationRecorder, Any, Any, Tensor], int | None]:
    """Return the lowering of a sum, difference or product of two values, or of a value and a number."""

    def lower(recorder: OperationRecorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
        one, other = args[:2]
        if kwargs.get("alpha", 1) != 1:
            return None
        for number, value, is_reversed in ((other, one, False), (one, other, True)):
            if not isinstance(number, Tensor) or (number.dim() == 0 and not recorder.is_dynamic(number)):
                factor, offset = (
                    (float(number), 0.0)
                    if kind == "multiply"
                    else (sign if is_reversed else 1.0, float(number) * (1 if is_reversed else sign))
                )
                return recorder.add_operation(
                    "scalar_affine",
                    (recorder.value_indices[id(value)],),
                    out,
                    settings={"factor": factor, "offset": offset},
                )
        first, second = recorder.value_index(one, out.dim()), recorder.value_index(other, out.dim())
        if first is None or second is None:
            return None
        if sign < 0:
            second = recorder.add_operation(
                "scalar_affine",
                (second,),
                other if other.dim() == out.dim() else other[None],
                settings={"factor": -1.0, "offset": 0.0},
            )
        return recorder.add_operation(kind, (first, second), out)

    return lower


def _lower_division(recorder: OperationRecorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
    if kwargs or recorder.is_dynamic(args[1]) or not (not isinstance(args[1], Tensor) or args[1].dim() == 0):
        return None
    return recorder.add_operation(
        "scalar_affine",
        (recorder.value_indices[id(args[0])],),
        out,
        settings={"factor": 1 / float(args[1]), "offset": 0.0},
    )


def _lower_concatenate(recorder: OperationRecorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
    axis = (args[1] if len(args) > 1 else 0) % out.dim()
    value_indices = [recorder.value_index(part_index, out.dim()) for part_index in args[0]]
    if axis == 0 or any(
        part is None or tensor.dim() != out.dim() for part, tensor in zip(value_indices, args[0], strict=True)
    ):
        return None
    return recorder.add_operation(
        "concatenate", tuple(part for part in value_indices if part is not None), out, settings={"axis": axis - 1}
    )


def _lower_slice(recorder: OperationRecorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
    padded_arguments: list[Any] = [*args, *[None] * 4]
    x, start, stride = padded_arguments[0], padded_arguments[2] or 0, padded_arguments[4]
    axis = (padded_arguments[1] or 0) % x.dim()
    if stride not in {None, 1} or (axis == 0 and out.shape != x.shape):
        return None
    if out.shape == x.shape:
        return recorder.value_indices[id(x)]
    start = min(start, x.shape[axis]) if start >= 0 else max(0, x.shape[axis] + start)
    return recorder.add_operation(
        "slice", (recorder.value_indices[id(x)],), out, settings={"axis": axis - 1, "start": start}
    )


def _lower_transpose(recorder: OperationRecorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
    axes = {args[1] % out.dim(), args[2] % out.dim()}
    if axes != {out.dim() - 1, out.dim() - 2} or out.dim() != 3:
        return None
    return recorder.add_operation("transpose", (recorder.value_indices[id(args[0])],), out)


def _lower_matmul(recorder: OperationRecorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
    if not all(id(tensor) in recorder.value_indices for tensor in args[:2]):
        return None
    return recorder.add_operation(
        "matmul", (recorder.value_indices[id(args[0])], recorder.value_indices[id(args[1])]), out
    )


def _lower_softmax(recorder: OperationRecorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
    return (
        recorder.add_operation("softmax", (recorder.value_indices[id(args[0])],), out)
        if args[1] % out.dim() == out.dim() - 1
        else None
    )


def _lower_pool(kind: str) -> Callable[[OperationRecorder, Any, Any, Tensor], int | None]:
    """Return the lowering of pooling over non-overlapping windows."""

    def lower(recorder: OperationRecorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
        window, stride, padding, *extra_arguments = (*args[1:], *(None,) * 3)[:4]
        is_default = all(
            not extra or list(extra if isinstance(extra, list) else [extra]) in ([1, 1], [1])
            for extra in extra_arguments
        )
        if (
            (stride and _pair(stride) != _pair(window))
            or (padding and any(_pair(padding)))
            or not is_default
            or args[0].dim() != 4
        ):
            return None
        return recorder.add_operation(
            kind, (recorder.value_indices[id(args[0])],), out, settings={"kernel_size": _pair(window)}
        )

    return lower


def _pair(sizes: Any) -> tuple[int, int]:
    return (int(sizes[0]), int(sizes[-1]))


LOWERINGS: dict[str, Callable[[OperationRecorder, Any, Any, Tensor], int | None]] = {
    **dict.fromkeys(("alias", "detach", "clone", "contiguous", "_to_copy", "lift_fresh"), _lower_identity),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze"), _lower_unary("reshape")),
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit_no_training"), _lower_batch_norm),
    **{name: _lower_unary(name) for name in ("tanh", "sigmoid")},
    **dict.fromkeys(("mm", "addmm"), _lower_linear),
    "relu": _lower_relu,
    "leaky_relu": _lower_leaky_relu,
    "convolution": _lower_convolution,
    "upsample_nearest2d": _lower_unary("upsample_nearest"),
    "add": _lower_binary("add"),
    "sub": _lower_binary("add", sign=-1.0),
    "mul": _lower_binary("multiply"),
    "div": _lower_division,
    "cat": _lower_concatenate,
    "slice": _lower_slice,
    "transpose": _lower_transpose,
    "bmm": _lower_matmul,
    "_softmax": _lower_softmax,
    "max_pool2d_with_indices": _lower_pool("max_pool2d"),
    "avg_pool2d": _lower_pool("avg_pool2d"),
}
"""The lowering of each PyTorch operation. None means that it is unsupported with these arguments."""
