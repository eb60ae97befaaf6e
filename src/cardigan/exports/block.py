"""One block of bytes for all of a program's numbers, as 16-bit floats, 8-bit integers or 32-bit floats, and what a reader finds where.

Does not know what the tensors are for.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cardigan.errors import CardiganError, unknown

WEIGHTS = ("float16", "int8", "float32")
LARGEST_HALF = 65504.0
"""The largest 16-bit float."""


def packed(tensors: Sequence[Tensor], weights: str) -> tuple[list[dict[str, Any]], bytes]:
    """Return for each tensor where it lies (kind, shape, byte offsets), and the block.

    Tensors of one axis (biases, scales) are few and stay 32-bit. `int8` has one 32-bit scale for each row, the tensor's first axis: value =
    integer x scale. Raises CardiganError for an unknown kind, and for numbers that the kind cannot hold.
    """
    if weights not in WEIGHTS:
        raise unknown("kind of weights", weights, WEIGHTS)
    entries, block = [], bytearray()
    for tensor in tensors:
        numbers = tensor.detach().float().cpu().numpy()
        if not np.isfinite(numbers).all():
            raise CardiganError("This generator has weights that are no finite numbers, so it draws nothing: export an earlier checkpoint.")
        kind = weights if numbers.ndim > 1 else "float32"
        entry: dict[str, Any] = {"kind": kind, "shape": list(numbers.shape), "at": 0}
        if kind == "int8":
            rows = numbers.reshape(len(numbers), -1)
            scales = (np.abs(rows).max(axis=1, keepdims=True) / 127).astype("<f4")
            entry["scales"] = _appended(block, scales.tobytes())
            stored = np.round(rows / np.where(scales == 0, 1, scales)).astype("i1")
        else:
            if kind == "float16" and np.abs(numbers).max(initial=0) > LARGEST_HALF:
                raise CardiganError(
                    f"This generator has weights up to {np.abs(numbers).max():.3g}, and 16-bit floats end at {LARGEST_HALF:.0f}: "
                    "keep them as float32, or export it as onnx or safetensors instead."
                )
            stored = numbers.astype("<f2" if kind == "float16" else "<f4")
        entry["at"] = _appended(block, stored.tobytes())
        entries.append(entry)
    return entries, bytes(block)


def unpacked(entries: Sequence[dict[str, Any]], block: bytes) -> tuple[Tensor, ...]:
    """Return the tensors that a reader of the block finds."""
    types = {"float16": "<f2", "float32": "<f4", "int8": "i1"}
    tensors = []
    for entry in entries:
        count = int(np.prod(entry["shape"]))
        numbers = np.frombuffer(block, types[entry["kind"]], count, entry["at"]).astype(np.float32).reshape(entry["shape"])
        if entry["kind"] == "int8":
            scales = np.frombuffer(block, "<f4", len(numbers), entry["scales"])
            numbers = numbers * scales.reshape(-1, *[1] * (numbers.ndim - 1))
        tensors.append(torch.from_numpy(numbers.copy()))
    return tuple(tensors)


def _appended(block: bytearray, content: bytes) -> int:
    """Put the content at the end of the block, aligned to 4 bytes, and return where."""
    block.extend(bytes(-len(block) % 4))
    at = len(block)
    block.extend(content)
    return at
