"""The memory of this process: how much it holds, what happens to freed memory, which errors mean that none is left.

Knows the operating system and PyTorch's allocators, nothing of networks.

PyTorch frees every intermediate tensor at the end of each step. glibc gives such large blocks back to the kernel, and
the next step has them cleared and mapped again, page by page: 86,000 page faults and a tenth of the time of one step of
the tutorial (docs/lab-book.md).
"""

import ctypes
import platform
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from cardigan.hardware.metal import is_metal

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Names of glibc's settings (malloc.h)."""
KEEPING = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 2**26}
USUAL = {MMAP_MAX: 65_536, TRIM_THRESHOLD: 2**17, TOP_PAD: 2**17}
"""What glibc starts with (mallopt(3))."""

OUT_OF_MEMORY = (
    "out of memory",  # CUDA's own errors, also when a graph is instantiated; Metal's ("MPS backend out of memory")
    "cudnn_status_alloc_failed",
    "cublas_status_alloc_failed",
    "cusolver_status_alloc_failed",
    "unable to find an engine",  # cuDNN's frontend, where every engine's workspace is too large
    "unable to find a valid cudnn algorithm",  # the same in PyTorch before cuDNN's version 8 interface
    "invalid buffer size",  # Metal, for one tensor that is too large
    "defaultcpuallocator",  # PyTorch's CPU allocator
    "could not create a primitive",  # oneDNN, where its own allocation fails
    "could not create a memory object",
)
"""What PyTorch and its libraries say, in lower case, when memory has run out and the error is another class."""


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Inside the block, keep freed memory for the next step; at its end, give all that is free back to the system.

    Does nothing where the C library is not glibc. Overrules glibc's own environment variables.
    """
    _set(KEEPING)
    try:
        yield
    finally:
        _set(USUAL)
        release_memory()


def release_memory() -> None:
    """Give all that is freed back to the system now; the next step fetches again what it needs.

    For after something else than a step has run.
    """
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory has run out, whichever library says so and in whatever words.

    So does an error that was raised while such a one was dealt with, as by a recording that ends before its time.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error).lower()
    if isinstance(error, RuntimeError) and any(words in message for words in OUT_OF_MEMORY):
        return True
    earlier = error.__cause__ or error.__context__
    return isinstance(error, RuntimeError) and earlier is not None and is_out_of_memory(earlier)


def used_megabytes(device: torch.device) -> float:
    """Return the memory this process holds now, in MB.

    On a GPU: what PyTorch has reserved there, with recorded steps and its cache. Elsewhere: the resident memory, or its
    peak where the system tells only that.
    """
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device) / 1e6
    if is_metal(device):
        return torch.mps.current_allocated_memory() / 1e6
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize() / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if platform.system() == "Darwin" else peak / 1e3


def free_device_bytes(device: torch.device) -> int:
    """Return how much of a GPU's memory this process can still take: what is free, and the unused part of the cache."""
    if is_metal(device):
        return max(0, torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _set(values: dict[int, int]) -> None:
    library = _glibc()
    if library is not None:
        for name, value in values.items():
            library.mallopt(name, value)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
