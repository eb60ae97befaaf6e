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

from cardigan.data.formats.file_names import error_reason
from cardigan.data.webdataset.addresses import file_system, is_http, is_remote, redact_query
from cardigan.errors import CardiganError

RETRY_DELAYS = (0.5, 1.0, 2.0)
"""Seconds before a broken connection is tried again; as often as there are waits."""
TIMEOUT_SECONDS = 30.0
"""Seconds a server may be silent."""
READ_BYTES = 1 << 20
RETRYABLE_STATUS = {408, 425, 429}
"""HTTP errors of the 400s that may be gone a moment later."""


class ReadCancelled(Exception):
    """Nobody waits for the shard any more."""


class ByteStream(ABC):
    """The bytes of one shard, as long as they are wanted."""

    def __init__(self, address: str, keep_reading: Callable[[], bool]) -> None:
        self.address = address
        self.position = 0
        """How many bytes were passed, read or skipped."""
        self._keep_reading = keep_reading

    def read(self, size: int) -> bytes:
        """Return the next bytes, `size` at most; none at the end. Raises OSError, or UnwantedError: a server may send without an end."""
        if not self._keep_reading():
            raise ReadCancelled
        return self._read(size)

    @abstractmethod
    def _read(self, size: int) -> bytes: ...

    @abstractmethod
    def skip(self, size: int) -> None:
        """Pass over bytes; ones beyond the end are noticed only when the next piece is empty."""

    @abstractmethod
    def close(self) -> None: ...


class LocalStream(ByteStream):
    """A file's bytes."""

    def __init__(self, address: str, keep_reading: Callable[[], bool]) -> None:
        super().__init__(address, keep_reading)
        self._file = Path(address).open("rb")  # noqa: SIM115 - closed by close()

    def _read(self, size: int) -> bytes:
        content = self._file.read(size)
        self.position += len(content)
        return content

    def skip(self, size: int) -> None:
        self._file.seek(size, os.SEEK_CUR)
        self.position += size

    def close(self) -> None:
        self._file.close()


class RemoteStream(ByteStream):
    """The bytes behind a URL. Where the connection breaks it is made again, and goes on from the byte it broke at."""

    def __init__(self, address: str, keep_reading: Callable[[], bool]) -> None:
        super().__init__(address, keep_reading)
        self._response: Any = None  # an HTTPResponse or a file of fsspec's
        self._size: int | None = None

    def _read(self, size: int) -> bytes:
        for delay in RETRY_DELAYS:
            try:
                return self._try_read(size)
            except OSError as error:
                self.close()
                if _is_final(error):
                    raise
            time.sleep(delay)
        return self._try_read(size)

    def skip(self, size: int) -> None:
        while size > 0:
            num_read = len(self.read(min(size, READ_BYTES)))
            if not num_read:
                return
            size -= num_read

    def close(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            with _as_os_errors():
                response.close()

    def _try_read(self, size: int) -> bytes:
        with _as_os_errors():
            if self._response is None:
                self._response = self._connect()
            content = self._response.read(size)
        if not content and self._size is not None and self.position < self._size:
            raise ConnectionError(f"the connection broke after {self.position:,} of {self._size:,} bytes")
        self.position += len(content)
        return content

    def _connect(self) -> Any:
        """Return the shard opened at the current position."""
        if is_http(self.address):
            return self._http_response()
        system, path = file_system(self.address)
        file = system.open(path, "rb")
        file.seek(self.position)
        return file

    def _http_response(self) -> http.client.HTTPResponse:
        headers = {"Range": f"bytes={self.position}-"} if self.position else {}
        response = urllib.request.urlopen(
            urllib.request.Request(self.address, headers=headers), timeout=TIMEOUT_SECONDS
        )
        try:
            self._check_size(_content_size(response))
            if response.status == http.client.PARTIAL_CONTENT:
                if not response.headers.get("Content-Range", "").startswith(f"bytes {self.position}-"):
                    raise ConnectionError("the server answered with another part of the file than was asked for")
            else:
                _discard(response, self.position)  # a server that knows no ranges starts from the beginning
        except BaseException:
            response.close()
            raise
        return response

    def _check_size(self, size: int | None) -> None:
        if self._size is not None and size is not None and size != self._size:
            raise CardiganError(
                f"The shard {redact_query(self.address)} was changed while it was read (it had {self._size:,} bytes and now has {size:,}): start again."
            )
        self._size = size if self._size is None else self._size


def _content_size(response: Any) -> int | None:
    """Return how many bytes the whole file has, if the server tells."""
    partial = response.status == http.client.PARTIAL_CONTENT
    length = (
        response.headers.get("Content-Range", "").rpartition("/")[2]
        if partial
        else response.headers.get("Content-Length", "")
    )
    return int(length) if length.isdecimal() else None


def _discard(response: Any, size: int) -> None:
    while size > 0:
        num_read = len(response.read(min(size, READ_BYTES)))
        if not num_read:
            raise ConnectionError("the connection broke again before the byte it had broken at")
        size -= num_read


@contextmanager
def _as_os_errors() -> Iterator[None]:
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
        return 400 <= error.code < 500 and error.code not in RETRYABLE_STATUS
    return isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError)


@contextmanager
def open_shard(address: str, keep_reading: Callable[[], bool] = lambda: True) -> Iterator[ByteStream]:
    """Yield a shard's bytes; whatever keeps them from being read, in the block too, is a CardiganError.

    Once `keep_reading` says no, the next piece is an UnwantedError.
    """
    try:
        with closing((RemoteStream if is_remote(address) else LocalStream)(address, keep_reading)) as stream:
            yield stream
    except OSError as error:
        hint = (
            "is the address right, and the server at work?"
            if is_remote(address)
            else "is it there, and may it be read?"
        )
        raise CardiganError(f"Cannot read the shard {redact_query(address)} ({_error_text(error)}): {hint}") from error


def _error_text(error: OSError) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}".rstrip()
    return error_reason(
        error.reason if isinstance(error, urllib.error.URLError) and isinstance(error.reason, OSError) else error
    )
