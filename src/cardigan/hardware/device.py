"""Find a device by name and make its results deterministic.

Does not know what is computed there.
"""

import torch

from cardigan.errors import CardiganError
from cardigan.hardware.precision import allow_tf32


def find_device(name: str | torch.device, local_rank: int | None = None) -> torch.device:
    """Return a device of this machine. For a GPU, set its index, deterministic kernels and IEEE fp32.

    `name` is cpu, cuda, cuda:1, mps or auto, the fastest available. `cuda` means the GPU with the index `local_rank`,
    or PyTorch's current GPU without a rank. Raises CardiganError for a device that this machine or this PyTorch does
    not have.
    """
    wanted = _fastest() if str(name) == "auto" else str(name)
    try:
        device = torch.device(wanted)
        if device.type == "meta":
            raise RuntimeError("the meta device holds no numbers")
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device() if local_rank is None else local_rank)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises the second when it was built without CUDA
        raise CardiganError(
            f"device is {str(name)!r}, which this machine or this PyTorch does not have: use auto or cpu."
        ) from error
    if device.type == "cuda":
        use_deterministic_kernels()
        allow_tf32(False)
    return device


def use_deterministic_kernels() -> None:
    """Make cuDNN use deterministic convolution kernels in the whole process.

    A resumed run has to end with the same bits, and a seed has to give the same image twice. Other operations that are
    not deterministic on a GPU are avoided (`objective/operations/resampling.py`, `nets/r3gan.py`).
    """
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def _fastest() -> str:
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
