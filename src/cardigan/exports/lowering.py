"""Writes down what a generator computes, by watching it compute: PyTorch's own operations in, a Program out.

Knows no network by name: one of your own works as long as it is made of operations in LOWERED. What depends on weights alone (such as
spectral normalisation) is computed now; what depends on the class alone becomes a table with a row for each; what depends on z is written down.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from cardigan.errors import CardiganError
from cardigan.exports.program import Program, Setting, Step, folded
from cardigan.nets.interface import Generator

aten = torch.ops.aten
UNSEEN_BATCH = 2
"""Pictures in the pass that is watched, where there are no classes; z is on the meta device, so nothing of it is computed."""


@torch.no_grad()
def lowered(generator: Generator, latent_size: int, classes: int) -> Program:
    """Return the program of a generator in evaluation mode; raises CardiganError for one with a part that a page cannot run."""
    batch = classes or UNSEEN_BATCH
    labels = torch.arange(classes, device=next(generator.parameters()).device) if classes else None
    z = torch.zeros(batch, latent_size, device="meta")
    recorder = Recorder(z, labels)
    with ExitStack() as hooks:
        for name, module in generator.named_modules():
            hooks.callback(module.register_forward_pre_hook(recorder.entering(name or type(generator).__name__)).remove)
            hooks.callback(module.register_forward_hook(recorder.leaving).remove)
        with recorder:
            images = generator(z, labels)
    if recorder.numbers.get(id(images)) != len(recorder.steps):
        raise CardiganError("This generator's picture is not what it computes last, so a page cannot run it: export it as onnx or pt2 instead.")
    return folded(Program(tuple(recorder.steps), tuple(recorder.tensors), latent_size, classes))


class Recorder(TorchDispatchMode):
    """Follows every operation of a pass: computes what does not depend on z, writes down what does."""

    def __init__(self, z: Tensor, labels: Tensor | None) -> None:
        super().__init__()
        self.batch = len(z)
        self.steps: list[Step] = []
        self.tensors: list[Tensor] = []
        self.numbers: dict[int, int] = {id(z): 0}
        """By a tensor's id, the number of its value."""
        self.of_class = set() if labels is None else {id(labels)}
        self.kept: list[Any] = [z, labels]  # an id says nothing once its tensor is gone
        self.inside: list[str] = []

    def entering(self, name: str) -> Callable[..., None]:
        return lambda module, inputs: self.inside.append(f"{type(module).__name__} {name!r}")

    def leaving(self, module: Any, inputs: Any, output: Any) -> None:
        self.inside.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(id(tensor) in self.numbers for tensor in given):
            result = func(*args, **(kwargs or {}))
            if any(id(tensor) in self.of_class for tensor in given):
                self.of_class |= {id(leaf) for leaf in tree_leaves(result)}
            self.kept.append((result, args))
            return result
        onto_meta = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs or {}))
        result = func(*onto_meta[0], **onto_meta[1])
        out = result[0] if isinstance(result, tuple | list) else result
        self.numbers[id(out)] = self._written(func, args, kwargs or {}, out)
        self.kept.append((result, args))
        if func.overloadpacket.__name__.endswith("_") and isinstance(args[0], Tensor):  # in place
            self.numbers[id(args[0])] = self.numbers[id(out)]
            return args[0]
        return result

    def _written(self, func: Any, args: Any, kwargs: Any, out: Tensor) -> int:
        """Return the number of the value that this operation gives."""
        name = func.overloadpacket.__name__
        lower = LOWERED.get(name.removesuffix("_") if name != "_" else name)
        whole = out.shape[:1] == (self.batch,) and out.dtype == torch.float32
        number = lower(self, args, kwargs, out) if lower and whole else None
        if number is None:
            where = self.inside[-1] if self.inside else "the generator"
            raise CardiganError(
                f"A page cannot run {name!r} of {where} on what it is given there: export this generator as onnx or pt2 instead, "
                "or teach src/cardigan/exports/lowering.py the operation."
            )
        return number

    def step(
        self, kind: str, inputs: tuple[int, ...], out: Tensor, tensors: tuple[Tensor | None, ...] = (), settings: dict[str, Setting] | None = None
    ) -> int:
        numbers = tuple(None if tensor is None else self._kept_tensor(tensor) for tensor in tensors)
        self.steps.append(Step(kind, inputs, tuple(out.shape[1:]), settings or {}, numbers))
        return len(self.steps)

    def _kept_tensor(self, tensor: Tensor) -> int:
        self.tensors.append(tensor.detach().float().cpu())
        return len(self.tensors) - 1

    def depends(self, tensor: Any) -> bool:
        return id(tensor) in self.numbers or id(tensor) in self.of_class

    def value(self, tensor: Tensor, axes: int) -> int | None:
        """Return the number of a tensor's value, written down now if it does not depend on z; None if it has no place beside `axes` axes."""
        if id(tensor) not in self.numbers:
            if id(tensor) in self.of_class:
                number = self.step("rows", (), tensor, (tensor,))
            elif tensor.dim() == axes and tensor.shape[0] != 1:
                return None
            else:
                whole = tensor if tensor.dim() == axes else tensor[None]
                number = self.step("constant", (), whole, (whole[0],))
            self.numbers[id(tensor)] = number
            self.kept.append(tensor)
        elif tensor.dim() not in {axes, axes - 1}:
            return None
        return self.numbers[id(tensor)]


def _same(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
    return recorder.numbers[id(args[0])]


def _plain(kind: str) -> Callable[[Recorder, Any, Any, Tensor], int | None]:
    """Return the writing of an operation on one value without settings."""
    return lambda recorder, args, kwargs, out: recorder.step(kind, (recorder.numbers[id(args[0])],), out)


def _leaky(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
    slope = args[1] if len(args) > 1 else 0.01
    return recorder.step("leaky", (recorder.numbers[id(args[0])],), out, settings={"slope": float(slope)})


def _relu(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
    return recorder.step("leaky", (recorder.numbers[id(args[0])],), out, settings={"slope": 0.0})


def _product(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
    """Write down x @ W and b + x @ W."""
    bias, x, weight = (None, *args) if len(args) == 2 else args[:3]
    if kwargs or id(x) not in recorder.numbers or recorder.depends(weight) or recorder.depends(bias) or (bias is not None and bias.dim() != 1):
        return None
    return recorder.step("linear", (recorder.numbers[id(x)],), out, (weight.t(), bias))


def _convolution(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
    x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = args
    if recorder.depends(weight) or recorder.depends(bias) or list(dilation) != [1, 1] or x.dim() != 4 or (transposed and groups != 1):
        return None
    both: dict[str, Setting] = {"stride": _pair(stride), "padding": _pair(padding)}
    own: dict[str, Setting] = {"output_padding": _pair(output_padding)} if transposed else {"groups": int(groups)}
    return recorder.step("spread" if transposed else "convolution", (recorder.numbers[id(x)],), out, (weight, bias), {**both, **own})


def _normalised(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
    x, weight, bias, mean, variance = args[:5]
    eps = args[-1]
    if mean is None or variance is None or args[5] is True or x.dim() != 4:  # statistics of the batch: a picture would depend on its neighbours
        return None
    scale = (variance + eps).rsqrt() * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - mean * scale
    return recorder.step("affine", (recorder.numbers[id(x)],), out, (scale, shift))


def _both(kind: str, sign: float = 1.0) -> Callable[[Recorder, Any, Any, Tensor], int | None]:
    """Return the writing of a sum, a difference or a product of two values, or of a value and a number."""

    def write(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
        one, other = args[:2]
        if kwargs.get("alpha", 1) != 1:
            return None
        for number, value, turned in ((other, one, False), (one, other, True)):
            if not isinstance(number, Tensor) or (number.dim() == 0 and not recorder.depends(number)):
                factor, offset = (float(number), 0.0) if kind == "multiply" else (sign if turned else 1.0, float(number) * (1 if turned else sign))
                return recorder.step("scale", (recorder.numbers[id(value)],), out, settings={"factor": factor, "offset": offset})
        first, second = recorder.value(one, out.dim()), recorder.value(other, out.dim())
        if first is None or second is None:
            return None
        if sign < 0:
            second = recorder.step("scale", (second,), other if other.dim() == out.dim() else other[None], settings={"factor": -1.0, "offset": 0.0})
        return recorder.step(kind, (first, second), out)

    return write


def _divided(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
    if kwargs or recorder.depends(args[1]) or not (not isinstance(args[1], Tensor) or args[1].dim() == 0):
        return None
    return recorder.step("scale", (recorder.numbers[id(args[0])],), out, settings={"factor": 1 / float(args[1]), "offset": 0.0})


def _concatenated(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
    axis = (args[1] if len(args) > 1 else 0) % out.dim()
    parts = [recorder.value(part, out.dim()) for part in args[0]]
    if axis == 0 or any(part is None or tensor.dim() != out.dim() for part, tensor in zip(parts, args[0], strict=True)):
        return None
    return recorder.step("concatenate", tuple(part for part in parts if part is not None), out, settings={"axis": axis - 1})


def _sliced(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
    given: list[Any] = [*args, *[None] * 4]
    x, start, every = given[0], given[2] or 0, given[4]
    axis = (given[1] or 0) % x.dim()
    if every not in {None, 1} or (axis == 0 and out.shape != x.shape):
        return None
    if out.shape == x.shape:
        return recorder.numbers[id(x)]
    start = min(start, x.shape[axis]) if start >= 0 else max(0, x.shape[axis] + start)
    return recorder.step("slice", (recorder.numbers[id(x)],), out, settings={"axis": axis - 1, "start": start})


def _transposed(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
    axes = {args[1] % out.dim(), args[2] % out.dim()}
    if axes != {out.dim() - 1, out.dim() - 2} or out.dim() != 3:
        return None
    return recorder.step("transpose", (recorder.numbers[id(args[0])],), out)


def _batched_product(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
    if not all(id(each) in recorder.numbers for each in args[:2]):
        return None
    return recorder.step("matmul", (recorder.numbers[id(args[0])], recorder.numbers[id(args[1])]), out)


def _softmax(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
    return recorder.step("softmax", (recorder.numbers[id(args[0])],), out) if args[1] % out.dim() == out.dim() - 1 else None


def _pooled(kind: str) -> Callable[[Recorder, Any, Any, Tensor], int | None]:
    """Return the writing of a pooling in windows that do not overlap."""

    def write(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> int | None:
        window, stride, padding, *others = (*args[1:], *(None,) * 3)[:4]
        plain = all(not other or list(other if isinstance(other, list) else [other]) in ([1, 1], [1]) for other in others)
        if (stride and _pair(stride) != _pair(window)) or (padding and any(_pair(padding))) or not plain or args[0].dim() != 4:
            return None
        return recorder.step(kind, (recorder.numbers[id(args[0])],), out, settings={"window": _pair(window)})

    return write


def _pair(sizes: Any) -> tuple[int, int]:
    return (int(sizes[0]), int(sizes[-1]))


LOWERED: dict[str, Callable[[Recorder, Any, Any, Tensor], int | None]] = {
    **dict.fromkeys(("alias", "detach", "clone", "contiguous", "_to_copy", "lift_fresh"), _same),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze"), _plain("reshape")),
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit_no_training"), _normalised),
    **{name: _plain(name) for name in ("tanh", "sigmoid")},
    **dict.fromkeys(("mm", "addmm"), _product),
    "relu": _relu,
    "leaky_relu": _leaky,
    "convolution": _convolution,
    "upsample_nearest2d": _plain("nearest"),
    "add": _both("add"),
    "sub": _both("add", sign=-1.0),
    "mul": _both("multiply"),
    "div": _divided,
    "cat": _concatenated,
    "slice": _sliced,
    "transpose": _transposed,
    "bmm": _batched_product,
    "_softmax": _softmax,
    "max_pool2d_with_indices": _pooled("largest"),
    "avg_pool2d": _pooled("average"),
}
"""How each of PyTorch's operations is written down; an answer of None is that it cannot be, as it is used."""
