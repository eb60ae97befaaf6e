"""Dispatch modes that check every operation of a training step: what a CPU can prove about a step on a GPU."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_leaves

READS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "unique_dim",
    "_unique2",
    "equal",
    "is_nonzero",
    "_cudnn_rnn",
}
"""Operations that return a value or a shape to the host. On a GPU the host would wait for them."""


class OnlyOn(TorchDispatchMode):
    """Fails at an operation with a tensor on another device.

    In a GPU step it would be a copy, or a constant in a graph.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        without_meta_kernel = func is torch.ops.aten._fused_adam_.tensor_lr  # in place, without a result
        result = None if without_meta_kernel else func(*args, **(kwargs or {}))
        for tensor in tensors_of((args, kwargs, result)):
            assert tensor.device.type == self.device, f"{func} has a tensor on {tensor.device}"
        return result


class NoHostReads(TorchDispatchMode):
    """Fails at an operation that reads a value on the host, uses a boolean mask or samples random numbers."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in READS, f"{func} reads values"
        assert torch.Tag.nondeterministic_seeded not in func.tags, f"{func} draws random numbers"
        if name in {"index", "index_put", "index_put_"}:
            masks = [each for each in tree_iter(args[1]) if isinstance(each, torch.Tensor) and each.dtype == torch.bool]
            assert not masks, f"{func} selects by a boolean mask"
        return func(*args, **(kwargs or {}))


class Tape(TorchDispatchMode):
    """Records operations with their tensors, like a CUDA graph, and replays them without the Python code."""

    def __init__(self) -> None:
        super().__init__()
        self._operations: list[tuple[Callable[..., Any], Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._operations.append((func, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, recorded in self._operations:
            again = func(*args, **kwargs)
            for old, new in zip(tensors_of(recorded), tensors_of(again), strict=True):
                if old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                    old.copy_(new)


def tensors_of(nested: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(nested) if isinstance(leaf, torch.Tensor)]
