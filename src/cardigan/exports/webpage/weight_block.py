"""One block of bytes for all of a program's numbers, as 16-bit floats, 8-bit integers or 32-bit floats, and what a reader finds where.

Does not know what the tensors are for.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cardigan.errors import CardiganError, unknown

WEIGHT_DTYPES = ("float16", "int8", "float32")
FLOAT16_MAX = 65504.0
"""The largest 16-bit float."""


def pack_tensors(tensors: Sequence[Tensor], dtype: str) -> tuple[list[dict[str, Any]], bytes]:
    """Return for each tensor where it lies (dtype, shape, byte offsets), and the block.

    Tensors of one axis (biases, scales) are few and stay 32-bit. `int8` has one 32-bit scale for each row, the tensor's first axis: value =
    integer x scale. Raises CardiganError for an unknown kind, and for numbers that the kind cannot hold.
    """
    if dtype not in WEIGHT_DTYPES:
        raise unknown("kind of weights", dtype, WEIGHT_DTYPES)
    entries, block = [], bytearray()
    for tensor in tensors:
        values = tensor.detach().float().cpu().numpy()
        if not np.isfinite(values).all():
            raise CardiganError(
                "This generator has weights that are no finite numbers, so it draws nothing: export an earlier checkpoint."
            )
        stored_dtype = dtype if values.ndim > 1 else "float32"
        entry: dict[str, Any] = {"dtype": stored_dtype, "shape": list(values.shape), "offset": 0}
        if stored_dtype == "int8":
            rows = values.reshape(len(values), -1)
            scales = (np.abs(rows).max(axis=1, keepdims=True) / 127).astype("<f4")
            entry["scales_offset"] = _append(block, scales.tobytes())
            stored = np.round(rows / np.where(scales == 0, 1, scales)).astype("i1")
        else:
            if stored_dtype == "float16" and np.abs(values).max(initial=0) > FLOAT16_MAX:
                raise CardiganError(
                    f"This generator has weights up to {np.abs(values).max():.3g}, and 16-bit floats end at {FLOAT16_MAX:.0f}: "
                    "keep them as float32, or export it as onnx or safetensors instead."
                )
            stored = values.astype("<f2" if stored_dtype == "float16" else "<f4")
        entry["offset"] = _append(block, stored.tobytes())
        entries.append(entry)
    return entries, bytes(block)


def unpack_tensors(entries: Sequence[dict[str, Any]], block: bytes) -> tuple[Tensor, ...]:
    """Return the tensors that a reader of the block finds."""
    numpy_dtypes = {"float16": "<f2", "float32": "<f4", "int8": "i1"}
    tensors = []
    for entry in entries:
        count = int(np.prod(entry["shape"]))
        values = (
            np.frombuffer(block, numpy_dtypes[entry["dtype"]], count, entry["offset"])
            .astype(np.float32)
            .reshape(entry["shape"])
        )
        if entry["dtype"] == "int8":
            scales = np.frombuffer(block, "<f4", len(values), entry["scales_offset"])
            values = values * scales.reshape(-1, *[1] * (values.ndim - 1))
        tensors.append(torch.from_numpy(values.copy()))
    return tuple(tensors)


def _append(block: bytearray, content: bytes) -> int:
    """Put the content at the end of the block, aligned to 4 bytes, and return where."""
    block.extend(bytes(-len(block) % 4))
    offset = len(block)
    block.extend(content)
    return offset
