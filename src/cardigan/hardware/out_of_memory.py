"""Which errors mean out of memory. Does not import torch, since importing it can be what runs out of memory."""

import os

from cardigan.errors import CardiganError

MIN_ADDRESS_SPACE = 700_000_000
"""Bytes that PyTorch and NumPy need. With 350 to 650 MB their native code aborts the process instead of raising."""
OUT_OF_MEMORY = (
    "out of memory",  # CUDA, also when a graph is instantiated; Metal ("MPS backend out of memory")
    "cudnn_status_alloc_failed",
    "cublas_status_alloc_failed",
    "cusolver_status_alloc_failed",
    "unable to find an engine",  # cuDNN's frontend, if every engine's workspace is too large
    "unable to find a valid cudnn algorithm",  # the same in PyTorch before cuDNN's version 8 API
    "invalid buffer size",  # Metal, for a single tensor that is too large
    "defaultcpuallocator",  # PyTorch's CPU allocator
    "could not create a primitive",  # oneDNN, if its own allocation fails
    "could not create a memory object",
    "failed to map segment",  # the dynamic linker, if a library does not fit into the address space (ulimit -v)
    "cannot allocate memory",  # the operating system (ENOMEM)
    "bad_alloc",  # C++
)
"""Lower-case parts of the out-of-memory messages of PyTorch, its libraries and the operating system."""


def check_address_space() -> None:
    """Raise CardiganError if the address space of this process is limited to less than PyTorch needs."""
    if os.name != "posix":
        return
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < MIN_ADDRESS_SPACE:
        raise CardiganError(
            f"The address space of this process is limited to {limit / 1e6:,.0f} MB, and PyTorch alone needs "
            f"{MIN_ADDRESS_SPACE / 1e6:,.0f} MB: raise the limit (ulimit -v)."
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of any library means out of memory.

    Also true for an error raised while an out-of-memory error was handled, for example by an aborted graph capture.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, without importing it
        return True
    if not isinstance(error, RuntimeError | ImportError | OSError):
        return False
    message = str(error).lower()
    if any(words in message for words in OUT_OF_MEMORY):
        return True
    earlier = error.__cause__ or error.__context__
    return isinstance(error, RuntimeError) and earlier is not None and is_out_of_memory(earlier)
