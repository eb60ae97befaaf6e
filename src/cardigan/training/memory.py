"""What the process does with memory it has freed. Knows the C library, nothing of tensors.

PyTorch frees every intermediate picture at the end of each step, glibc gives such large blocks back to the kernel, and the next step has them
cleared and mapped again, page by page: 86,000 page faults and a tenth of the time of one step of the tutorial (docs/lab-book.md).
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

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
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    _set(library, KEEPING)
    try:
        yield
    finally:
        _set(library, USUAL)
        library.malloc_trim(0)


def _set(library: ctypes.CDLL, values: dict[int, int]) -> None:
    for name, value in values.items():
        library.mallopt(name, value)
