"""The arithmetic of networks: fp32, TF32 or bf16, and what a device supports natively.

fp32 means IEEE fp32 everywhere. By default PyTorch lets cuDNN's convolutions use TF32, which has 10 bits of mantissa
(`torch.backends.cudnn.allow_tf32`). Cardigan disables that unless a run asks for TF32. Does not know networks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import torch

from cardigan.errors import CardiganError

Arithmetic: TypeAlias = Literal["fp32", "tf32", "bf16"]
"""The arithmetic of matrix products and convolutions. Everything that persists between steps is fp32 in all three."""
AMPERE = (8, 0)
"""The first compute capability with bf16 and TF32 products (CUDA C++ Programming Guide, "Compute Capabilities")."""


def resolve_arithmetic(precision: Literal["auto", "fp32", "tf32", "bf16"], device: torch.device) -> Arithmetic:
    """Return the arithmetic for a `precision` setting on a device.

    `auto` is bf16 if the hardware supports it natively, else fp32. Raises CardiganError for TF32 on a device without
    it.
    """
    if precision == "tf32" and not multiplies_tf32(device):
        raise CardiganError(
            f"precision is 'tf32', but the device {device} has no TF32 products (GPUs of compute capability 8.0 and "
            "higher have them): use auto, fp32 or bf16."
        )
    if precision == "auto":
        return "bf16" if multiplies_bf16(device) else "fp32"
    return precision


def multiplies_bf16(device: torch.device) -> bool:
    """Return whether the hardware has bf16 products: CUDA >= 8.0, AVX-512-BF16 or AMX.

    Other hardware emulates bf16, which is slower than fp32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= AMPERE
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def multiplies_tf32(device: torch.device) -> bool:
    """Return whether the hardware has TF32 products."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= AMPERE


def allow_tf32(allowed: bool) -> None:
    """Allow or forbid TF32 for a GPU's fp32 convolutions (cuDNN) and matrix products (cuBLAS), in the whole process."""
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


def tf32_allowed() -> bool:
    """Return whether fp32 convolutions or matrix products may use TF32 now."""
    return bool(torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)


@contextmanager
def ieee_fp32(device: torch.device) -> Iterator[None]:
    """Disable TF32 on a GPU inside the block. Afterwards restore the previous settings."""
    if device.type != "cuda" or not tf32_allowed():
        yield
        return
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    allow_tf32(False)
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products
