"""Memory of this process: how much it uses, and when freed memory is returned.

Knows the operating system and PyTorch's allocators, but no networks.

PyTorch frees every intermediate tensor at the end of each step. glibc returns such large blocks to the kernel, and the
next step has to map and clear them again, page by page: 86,000 page faults and a tenth of the time of one step of the
tutorial (docs/lab-book.md).
"""

import ctypes
import platform
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from cardigan.hardware.metal import is_metal

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""glibc's mallopt parameters (malloc.h)."""
KEEP_FREED = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 2**26}
DEFAULTS = {MMAP_MAX: 65_536, TRIM_THRESHOLD: 2**17, TOP_PAD: 2**17}
"""glibc's defaults (mallopt(3))."""

_lock = threading.Lock()
_open_blocks: list[None] = []
"""One entry for each block of `keep_freed_memory` that is open, in any thread."""


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Keep freed memory for the next step inside the block, and return it to the system at the end.

    Blocks may be nested, also in several threads: the last one to end returns the memory. Does nothing if the C library
    is not glibc. Overrides glibc's environment variables.
    """
    with _lock:
        _open_blocks.append(None)
        if len(_open_blocks) == 1:
            _set(KEEP_FREED)
    try:
        yield
    finally:
        with _lock:
            _open_blocks.pop()
            if not _open_blocks:
                _set(DEFAULTS)
                release_memory()


def release_memory() -> None:
    """Return all freed memory to the system now. Call this after work other than a training step."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def used_megabytes(device: torch.device) -> float:
    """Return the memory this process uses now, in MB.

    On a GPU: the memory PyTorch has reserved, including CUDA graphs and its cache. Elsewhere: the resident memory, or
    its peak if the system reports nothing else.
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
    """Return how much GPU memory this process can still allocate: free memory and the unused part of the cache."""
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
