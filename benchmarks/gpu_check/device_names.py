"""The machine, and the meaning of device names on it."""

import os
import platform
from typing import Any

import torch

from cardigan.errors import CardiganError
from cardigan.hardware.device import find_device
from cardigan.hardware.precision import multiplies_bf16, multiplies_tf32
from gpu_check.part import Result, Settings


def run(settings: Settings, result: Result) -> None:
    device = find_device(settings.device)
    result.add(machine=machine(device))
    result.check(str(find_device("cpu")) == "cpu", f"'cpu' is {find_device('cpu')}")
    result.check(
        find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu"), f"'auto' is {find_device('auto')}"
    )
    result.check(find_device(str(device)) == device, f"{str(device)!r} is {find_device(str(device))}")
    for name in ("cuda:63", "no-device", *([] if torch.cuda.is_available() else ["cuda"])):
        result.check(is_refused(name), f"{name!r} is not refused with a one-line error")
    if not settings.on_gpu:
        result.skip("cuda", "no GPU is used")
        return
    result.check(device.index is not None, f"{settings.device!r} is found without its index: {device}")
    result.check(
        find_device("cuda") == find_device(torch.device("cuda")), "a name and a torch.device give different devices"
    )
    flags = torch.backends.cudnn
    result.check(flags.deterministic and not flags.benchmark, "cuDNN may choose kernels that are not deterministic")
    result.check(
        not (flags.allow_tf32 or torch.backends.cuda.matmul.allow_tf32),
        "TF32 is allowed, although no config requests it",
    )


def machine(device: torch.device) -> dict[str, Any]:
    """Return the hardware and library versions of this machine."""
    facts: dict[str, Any] = {"cores": os.cpu_count(), "system": platform.system(), "torch": torch.__version__}
    facts |= {"bf16 natively": multiplies_bf16(device), "tf32": multiplies_tf32(device)}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "gpu": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "processors": properties.multi_processor_count,
        }
        facts |= {
            "gigabytes": round(properties.total_memory / 1e9, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return facts


def is_refused(name: str) -> bool:
    try:
        find_device(name)
    except CardiganError as error:
        return repr(name) in str(error) and "\n" not in str(error)
    return False
