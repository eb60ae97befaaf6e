"""What memory the process holds, and what it does with memory it has freed. Knows the operating system, nothing of networks.

PyTorch frees every intermediate picture at the end of each step, glibc gives such large blocks back to the kernel, and the next step has them
cleared and mapped again, page by page: 86,000 page faults and a tenth of the time of one step of the tutorial (docs/lab-book.md).
"""

import ctypes
import platform
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Names of glibc's settings (malloc.h)."""
KEEPING = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 2**26}
USUAL = {MMAP_MAX: 65_536, TRIM_THRESHOLD: 2**17, TOP_PAD: 2**17}
"""What glibc starts with (mallopt(3))."""


@contextmanager
def kept_memory() -> Iterator[None]:
    """Inside the block, keep freed memory for the next step; at its end, give all that is free back to the system.

    Does nothing where the C library is not glibc. Where a person has set glibc's own environment variables, theirs are overruled.
    """
    _set(KEEPING)
    try:
        yield
    finally:
        _set(USUAL)
        give_back()


def give_back() -> None:
    """Give all that is freed back to the system now; the next step fetches again what it needs.

    For after something else than a step has run.
    """
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Return whether PyTorch says with this error that memory has run out; on the CPU it has no class of its own for it."""
    return isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))


def held_megabytes(device: torch.device) -> float:
    """Return what the process holds now, in MB: of a GPU the tensors on it, else the resident memory (its peak where the present is not told)."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 1e6
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize() / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if platform.system() == "Darwin" else peak / 1e3


def _set(values: dict[int, int]) -> None:
    library = _glibc()
    if library is not None:
        for name, value in values.items():
            library.mallopt(name, value)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
