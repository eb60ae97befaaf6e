"""Packs a program's tensors into one block of bytes, as float16, int8 or float32, and unpacks them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cardigan.errors import CardiganError, unknown

WEIGHT_DTYPES = ("float16", "int8", "float32")
FLOAT16_MAX = 65504.0
"""Largest finite float16."""


def pack_tensors(tensors: Sequence[Tensor], dtype: str) -> tuple[list[dict[str, Any]], bytes]:
    """Return an entry per tensor (dtype, shape, byte offsets), and the block.

    One-dimensional tensors (biases, scales) stay float32. `int8` has one float32 scale per row (the first axis):
    value = integer * scale. Raises CardiganError for an unknown dtype, and for values outside its range.
    """
    if dtype not in WEIGHT_DTYPES:
        raise unknown("weights dtype", dtype, WEIGHT_DTYPES)
    entries, block = [], bytearray()
    for tensor in tensors:
        values = tensor.detach().float().cpu().numpy()
        if not np.isfinite(values).all():
            raise CardiganError(
                "This generator has non-finite weights, so it generates no images: export an earlier checkpoint."
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
                    f"This generator has weights up to {np.abs(values).max():.3g}, but the float16 maximum is "
                    f"{FLOAT16_MAX:.0f}: use float32, or export as onnx or safetensors."
                )
            stored = values.astype("<f2" if stored_dtype == "float16" else "<f4")
        entry["offset"] = _append(block, stored.tobytes())
        entries.append(entry)
    return entries, bytes(block)


def unpack_tensors(entries: Sequence[dict[str, Any]], block: bytes) -> tuple[Tensor, ...]:
    """Return the tensors of a packed block."""
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
    """Append the content to the block, aligned to 4 bytes, and return its offset."""
    block.extend(bytes(-len(block) % 4))
    offset = len(block)
    block.extend(content)
    return offset
