"""Limits and bugs of PyTorch's backend for Apple GPUs (`mps`, Metal), and what Cardigan does instead.

Each entry has its source: PyTorch's source code, releases 2.8 to 2.13, and issues. None was tested on an Apple machine.
A number after `#` is an issue or a pull request of pytorch/pytorch. PyTorch does not document whether a step on Metal
is deterministic, so a resumed run may end with other bits there.
"""

from dataclasses import dataclass

import torch

from cardigan.errors import CardiganError


@dataclass(frozen=True)
class Limit:
    """A feature that does not work on Metal."""

    what: str
    instead: str
    """What Cardigan does on Metal. `refused` means an error with the reason."""
    source: str


LIMITS = {
    "channels_last": Limit(
        "backward passes of batch normalization, pooling and activations are wrong or fail in the channels_last layout",
        "networks keep the contiguous layout (training/devices.py)",
        "#175189, #175190, #175188; testing/_internal/common_modules.py of 2.13 expects BatchNorm2d to fail; #134618",
    ),
    "convolution strides": Limit(
        "a convolution assumes a contiguous weight, but PyTorch's double backward passes one that is not contiguous",
        "convolutions have their own derivatives, on contiguous tensors (nets/convolution.py)",
        "#192212, #192303 (macOS 15 and later; fixed after 2.13)",
    ),
    "max_pool2d": Limit(
        "max_pool2d cannot be differentiated twice, which penalties need",
        "max_pool2d with indices, which can be (nets/attention.py)",
        "derivatives.yaml has no formula for max_pool2d_backward; #98582",
    ),
    "int64 scatter": Limit(
        "scatter_add_ of int64 computes in int32 before 2.13",
        "the warp's gradient is summed on the CPU (objective/operations/resampling.py)",
        "ScatterGather.mm, scatter_mps_general; testing/_internal/common_mps.py of 2.13; #184057",
    ),
    "adaptive pooling": Limit(
        "adaptive_avg_pool2d requires divisible sides, adaptive_max_pool2d uses other windows for indivisible ones",
        "pooling to thumbnails is computed on the CPU (training/probe.py, explore/features.py)",
        "AdaptivePooling.mm, set_kernel_params; #96056",
    ),
    "fused Adam": Limit(
        "the fused Adam ignores found_inf before 2.13, so it would apply a skipped update",
        "the host checks each gradient before the optimizer steps (training/updates.py)",
        "MultiTensorApply.h of 2.8 to 2.12; #186360",
    ),
    "large tensors": Limit(
        "indexing beyond 2^31 elements is wrong without an error",
        "larger data sets stay in host memory and are copied step by step (experiment/build.py)",
        "#188756 (fixed after 2.13)",
    ),
    "float64": Limit(
        "float64 is not supported",
        "metrics, directions and exports compute on the CPU",
        '"MPS framework doesn\'t support float64"; #122602',
    ),
    "bf16": Limit(
        "bf16 transposed convolutions are an expected failure of PyTorch's own tests",
        "refused",
        "testing/_internal/common_mps.py, conv_transpose2d, 2.8 to 2.13; #139390",
    ),
    "several processes": Limit(
        "gloo does not exchange tensors of this device",
        "refused",
        "#160732, #189853; with PYTORCH_ENABLE_MPS_FALLBACK results are wrong: #173808",
    ),
}


def is_metal(device: torch.device) -> bool:
    return device.type == "mps"


def refuse_on_metal(name: str, device: torch.device, advice: str) -> None:
    """Raise CardiganError if the device is an Apple GPU. For limits without a workaround."""
    if is_metal(device):
        limit = LIMITS[name]
        raise CardiganError(f"device is {str(device)!r}, where {limit.what} (PyTorch, {limit.source}): {advice}.")
