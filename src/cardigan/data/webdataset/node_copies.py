"""Copies of remote shards that the processes of a node share, so that a node fetches each shard once.

The newest copies are kept, up to a limit. Does not know what is in a shard, nor how it is fetched.
"""

import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cardigan.files import atomic
from cardigan.files.disk_cache import cache_dir

MAX_BYTES = 1 << 31
"""Copies are removed beyond this size, the oldest first. The processes of a run are never further apart."""
POLL_SECONDS = 0.05
ABANDONED_SECONDS = 86_400.0
"""The copies of another run are removed after this time without a new one."""


def is_shared() -> bool:
    """Return whether this node has several processes of a run (torchrun)."""
    return os.name == "posix" and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1


def open_copy(
    address: str, fetch: Callable[[], Iterable[bytes]], keep_waiting: Callable[[], bool] = lambda: True
) -> BinaryIO | None:
    """Return the copy of a shard, open. The first process that asks fetches it; the others wait for it.

    Returns None if `keep_waiting` returns false, or if the disk is full.
    """
    folder = _run_folder()
    path = folder / hashlib.sha256(address.encode()).hexdigest()
    with suppress(FileNotFoundError):
        return path.open("rb")
    with _locked(folder / "lock", keep_waiting) as is_locked:
        if not is_locked:
            return None
        with suppress(FileNotFoundError):
            return path.open("rb")
        if not _write_copy(path, fetch):
            return None
        _remove_oldest(folder)
        return path.open("rb")


def _run_folder() -> Path:
    """Return the folder for the copies of this run on this node: another run may find other content."""
    job = f"{os.environ.get('TORCHELASTIC_RUN_ID')}/{os.environ.get('TORCHELASTIC_RESTART_COUNT')}"
    copies = cache_dir() / "shards" / "copies"
    folder = copies / f"{socket.gethostname()}-{hashlib.sha256(job.encode()).hexdigest()[:16]}"
    if not folder.exists():
        for other in copies.glob("*"):
            with suppress(FileNotFoundError):
                if time.time() - other.stat().st_mtime > ABANDONED_SECONDS:
                    atomic.remove(other)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _locked(path: Path, keep_waiting: Callable[[], bool]) -> Iterator[bool]:
    """Yield true under a lock that ends with its process, or false if `keep_waiting` returned false before."""
    import fcntl  # POSIX only

    with path.open("wb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not keep_waiting():
                    yield False
                    return
                time.sleep(POLL_SECONDS)
        try:
            yield True
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough: a process forked meanwhile has the file too


def _write_copy(path: Path, fetch: Callable[[], Iterable[bytes]]) -> bool:
    """Write a copy and return whether there was room for it."""
    temporary = path.with_name(f"{atomic.TEMPORARY_PREFIX}{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            for content in fetch():
                try:
                    file.write(content)
                except OSError:  # the disk is full
                    return False
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _remove_oldest(folder: Path) -> None:
    """Remove the oldest copies beyond the limit, and what a killed process left. A process that reads one keeps it."""
    num_bytes = 0
    copies = [path for path in folder.iterdir() if path.name != "lock"]
    for number, path in enumerate(sorted(copies, key=lambda path: path.stat().st_mtime_ns, reverse=True)):
        num_bytes += path.stat().st_size
        if path.name.startswith(atomic.TEMPORARY_PREFIX) or (number and num_bytes > MAX_BYTES):
            path.unlink()
