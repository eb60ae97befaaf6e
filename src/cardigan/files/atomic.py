"""Atomic writes: a temporary name, fsync, then rename.

Does not know the content. A failed write removes its temporary file and keeps the existing one.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cardigan.errors import CardiganError

TEMPORARY_PREFIX = ".tmp-"
"""Prefix of temporary names. Leftovers of a killed process are recognized by it and removed."""


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that readers see either the old content or the new one."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`. On success, rename the file or folder written there to `path`."""
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
        fsync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        remove(temporary)


def write_error(path: Path, error: OSError) -> CardiganError:
    return CardiganError(
        f"Cannot write {path}: {(error.strerror or str(error)).lower()}. Free some space or choose another folder; "
        "an existing file is kept."
    )


def fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power failure, on systems that support it."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file or a folder if it exists."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Remove what killed writers left in `folder` and one level below."""
    for temporary in [*folder.glob(f"{TEMPORARY_PREFIX}*"), *folder.glob(f"*/{TEMPORARY_PREFIX}*")]:
        remove(temporary)
