"""A shard's bytes, first to last, from the disk, a web server or any file system fsspec knows; nothing is downloaded whole.

Knows nothing of what the bytes mean.
"""

import http.client
import os
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from cardigan.data.formats.entries import reason
from cardigan.data.sharded.names import file_system, is_remote, is_web, told
from cardigan.errors import CardiganError

WAITS = (0.5, 1.0, 2.0)
"""Seconds before a broken connection is tried again; as often as there are waits."""
TIMEOUT = 30.0
"""Seconds a server may be silent."""
PIECE = 1 << 20
PASSING = {408, 425, 429}
"""HTTP errors of the 400s that may be gone a moment later."""


class UnwantedError(Exception):
    """Nobody waits for the shard any more."""


class Stream(ABC):
    """The bytes of one shard, as long as they are wanted."""

    def __init__(self, address: str, wanted: Callable[[], bool]) -> None:
        self.address = address
        self.position = 0
        """How many bytes were passed, read or skipped."""
        self._wanted = wanted

    def piece(self, size: int) -> bytes:
        """Return the next bytes, `size` at most; none at the end. Raises OSError, or UnwantedError: a server may send without an end."""
        if not self._wanted():
            raise UnwantedError
        return self._piece(size)

    @abstractmethod
    def _piece(self, size: int) -> bytes: ...

    @abstractmethod
    def skip(self, size: int) -> None:
        """Pass over bytes; ones beyond the end are noticed only when the next piece is empty."""

    @abstractmethod
    def close(self) -> None: ...


class LocalStream(Stream):
    """A file's bytes."""

    def __init__(self, address: str, wanted: Callable[[], bool]) -> None:
        super().__init__(address, wanted)
        self._file = Path(address).open("rb")  # noqa: SIM115 - closed by close()

    def _piece(self, size: int) -> bytes:
        content = self._file.read(size)
        self.position += len(content)
        return content

    def skip(self, size: int) -> None:
        self._file.seek(size, os.SEEK_CUR)
        self.position += size

    def close(self) -> None:
        self._file.close()


class RemoteStream(Stream):
    """The bytes behind a URL. Where the connection breaks it is made again, and goes on from the byte it broke at."""

    def __init__(self, address: str, wanted: Callable[[], bool]) -> None:
        super().__init__(address, wanted)
        self._answer: Any = None  # an HTTPResponse or a file of fsspec's
        self._total: int | None = None

    def _piece(self, size: int) -> bytes:
        for wait in WAITS:
            try:
                return self._attempt(size)
            except OSError as error:
                self.close()
                if _is_final(error):
                    raise
            time.sleep(wait)
        return self._attempt(size)

    def skip(self, size: int) -> None:
        while size > 0:
            passed = len(self.piece(min(size, PIECE)))
            if not passed:
                return
            size -= passed

    def close(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            with _os_errors():
                answer.close()

    def _attempt(self, size: int) -> bytes:
        with _os_errors():
            if self._answer is None:
                self._answer = self._connected()
            content = self._answer.read(size)
        if not content and self._total is not None and self.position < self._total:
            raise ConnectionError(f"the connection broke after {self.position:,} of {self._total:,} bytes")
        self.position += len(content)
        return content

    def _connected(self) -> Any:
        """Return the shard opened at the current position."""
        if is_web(self.address):
            return self._web_answer()
        system, path = file_system(self.address)
        file = system.open(path, "rb")
        file.seek(self.position)
        return file

    def _web_answer(self) -> http.client.HTTPResponse:
        headers = {"Range": f"bytes={self.position}-"} if self.position else {}
        answer = urllib.request.urlopen(urllib.request.Request(self.address, headers=headers), timeout=TIMEOUT)
        try:
            self._compare(_total(answer))
            if answer.status == http.client.PARTIAL_CONTENT:
                if not answer.headers.get("Content-Range", "").startswith(f"bytes {self.position}-"):
                    raise ConnectionError("the server answered with another part of the file than was asked for")
            else:
                _read_through(answer, self.position)  # a server that knows no ranges starts from the beginning
        except BaseException:
            answer.close()
            raise
        return answer

    def _compare(self, total: int | None) -> None:
        if self._total is not None and total is not None and total != self._total:
            raise CardiganError(
                f"The shard {told(self.address)} was changed while it was read (it had {self._total:,} bytes and now has {total:,}): start again."
            )
        self._total = total if self._total is None else self._total


def _total(answer: Any) -> int | None:
    """Return how many bytes the whole file has, if the server tells."""
    partial = answer.status == http.client.PARTIAL_CONTENT
    told_length = answer.headers.get("Content-Range", "").rpartition("/")[2] if partial else answer.headers.get("Content-Length", "")
    return int(told_length) if told_length.isdecimal() else None


def _read_through(answer: Any, size: int) -> None:
    while size > 0:
        passed = len(answer.read(min(size, PIECE)))
        if not passed:
            raise ConnectionError("the connection broke again before the byte it had broken at")
        size -= passed


@contextmanager
def _os_errors() -> Iterator[None]:
    """Turn what file systems and HTTP raise beside OSErrors into these."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        raise
    except (OSError, CardiganError):
        raise
    except Exception as error:  # s3fs, gcsfs and others pass on the exceptions of the packages they are built on
        raise OSError(f"{type(error).__name__}: {error}") from error


def _is_final(error: OSError) -> bool:
    """Return whether trying again is of no use."""
    if isinstance(error, urllib.error.HTTPError):
        return 400 <= error.code < 500 and error.code not in PASSING
    return isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError)


@contextmanager
def opened(address: str, wanted: Callable[[], bool] = lambda: True) -> Iterator[Stream]:
    """Yield a shard's bytes; whatever keeps them from being read, in the block too, is a CardiganError.

    Once `wanted` says no, the next piece is an UnwantedError.
    """
    try:
        with closing((RemoteStream if is_remote(address) else LocalStream)(address, wanted)) as stream:
            yield stream
    except OSError as error:
        hint = "is the address right, and the server at work?" if is_remote(address) else "is it there, and may it be read?"
        raise CardiganError(f"Cannot read the shard {told(address)} ({_cause(error)}): {hint}") from error


def _cause(error: OSError) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}".rstrip()
    return reason(error.reason if isinstance(error, urllib.error.URLError) and isinstance(error.reason, OSError) else error)
