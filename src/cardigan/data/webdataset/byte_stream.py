"""Sequential bytes of a shard from disk, a web server or any fsspec file system, without downloading the whole file.

Does not know the meaning of the bytes.
"""

import http.client
import os
import time
import urllib.error
import urllib.request
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from cardigan.data.webdataset.addresses import file_system, is_gzip, is_http, is_remote, redact_query
from cardigan.data.webdataset.node_copies import is_shared, open_copy
from cardigan.errors import CardiganError, error_reason

START_RETRY_SECONDS = 4.0
"""How long a connection is retried before training: a wrong address shows soon."""
FIRST_DELAY_SECONDS, MAX_DELAY_SECONDS = 0.5, 30.0
"""Delay before the first retry of a broken connection. It doubles with each retry."""
POLL_SECONDS = 0.5
TIMEOUT_SECONDS = 30.0
"""Maximum seconds without data from a server."""
READ_BYTES = 1 << 20
GZIP_WINDOW = 16 + zlib.MAX_WBITS
"""zlib's code for data with a gzip header."""
RETRYABLE_STATUS = {408, 425, 429}
"""HTTP 4xx errors that may be temporary."""


class ReadCancelled(Exception):
    """The shard is no longer needed."""


class ByteStream(ABC):
    """The bytes of one shard, while `keep_reading` returns true."""

    def __init__(self, address: str, keep_reading: Callable[[], bool]) -> None:
        self.address = address
        self.position = 0
        """Number of bytes read or skipped."""
        self._keep_reading = keep_reading

    def read(self, size: int) -> bytes:
        """Return at most `size` next bytes; empty at the end. Raises OSError, or ReadCancelled if no longer needed."""
        if not self._keep_reading():
            raise ReadCancelled
        return self._read(size)

    @abstractmethod
    def _read(self, size: int) -> bytes: ...

    @abstractmethod
    def skip(self, size: int) -> None:
        """Skip bytes. A skip beyond the end shows only as an empty next read."""

    @abstractmethod
    def close(self) -> None: ...


class LocalStream(ByteStream):
    """The bytes of a local file."""

    def __init__(self, address: str, keep_reading: Callable[[], bool], copy: BinaryIO | None = None) -> None:
        """`copy` is a file with the bytes of the address."""
        super().__init__(address, keep_reading)
        self._file = copy or Path(address).open("rb")  # noqa: SIM115 - closed by close()

    def _read(self, size: int) -> bytes:
        content = self._file.read(size)
        self.position += len(content)
        return content

    def skip(self, size: int) -> None:
        self._file.seek(size, os.SEEK_CUR)
        self.position += size

    def close(self) -> None:
        self._file.close()


class GzipStream(ByteStream):
    """The decompressed bytes of a gzipped shard."""

    def __init__(self, compressed: ByteStream) -> None:
        super().__init__(compressed.address, lambda: True)  # the compressed stream asks whether to go on
        self._compressed = compressed
        self._decompressor = zlib.decompressobj(GZIP_WINDOW)
        self._is_complete = True

    def _read(self, size: int) -> bytes:
        content = b""
        while not content:
            waiting = self._decompressor.unconsumed_tail or self._decompressor.unused_data
            part = waiting or self._compressed.read(READ_BYTES)
            if not part:
                break
            if self._decompressor.eof:  # another member follows
                self._decompressor = zlib.decompressobj(GZIP_WINDOW)
            try:
                content = self._decompressor.decompress(part, size)
            except zlib.error as error:
                raise OSError(f"its gzip data is damaged: {error}") from error
            self._is_complete = self._decompressor.eof
        if not content and not self._is_complete:
            raise OSError("its gzip data is truncated")
        self.position += len(content)
        return content

    def skip(self, size: int) -> None:
        while size > 0:
            num_read = len(self.read(min(size, READ_BYTES)))
            if not num_read:
                return
            size -= num_read

    def close(self) -> None:
        self._compressed.close()


class RemoteStream(ByteStream):
    """The bytes of a URL. After a broken connection, it reconnects and continues at the same byte."""

    def __init__(self, address: str, keep_reading: Callable[[], bool], retry_seconds: float) -> None:
        super().__init__(address, keep_reading)
        self._retry_seconds = retry_seconds
        self._response: Any = None  # an HTTPResponse or an fsspec file
        self._size: int | None = None

    def _read(self, size: int) -> bytes:
        started_at, delay = time.monotonic(), FIRST_DELAY_SECONDS
        while True:
            try:
                return self._try_read(size)
            except OSError as error:
                self.close()
                if _is_final(error) or time.monotonic() - started_at >= self._retry_seconds:
                    raise
            self._wait(delay)
            delay = min(2 * delay, MAX_DELAY_SECONDS)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (remaining := deadline - time.monotonic()) > 0:
            if not self._keep_reading():
                raise ReadCancelled
            time.sleep(min(remaining, POLL_SECONDS))

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
                    raise ConnectionError("the server returned another range of the file than requested")
            else:
                _discard(response, self.position)  # a server without range requests starts from the beginning
        except BaseException:
            response.close()
            raise
        return response

    def _check_size(self, size: int | None) -> None:
        if self._size is not None and size is not None and size != self._size:
            raise CardiganError(
                f"The shard {redact_query(self.address)} was changed while it was read (it had {self._size:,} bytes "
                f"and now has {size:,}): start again."
            )
        self._size = size if self._size is None else self._size


def _content_size(response: Any) -> int | None:
    """Return the size of the whole file, if the server sends it."""
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
            raise ConnectionError("the connection broke again before the byte at which it broke first")
        size -= num_read


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Convert other exceptions of file systems and HTTP to OSError."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        raise
    except (OSError, CardiganError):
        raise
    except Exception as error:  # s3fs, gcsfs and others raise exceptions of their underlying packages
        raise OSError(f"{type(error).__name__}: {error}") from error


def _is_final(error: OSError) -> bool:
    """Return whether a retry cannot help."""
    if isinstance(error, urllib.error.HTTPError):
        return 400 <= error.code < 500 and error.code not in RETRYABLE_STATUS
    return isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError)


def _remote_stream(address: str, keep_reading: Callable[[], bool], retry_seconds: float) -> ByteStream:
    """Return the bytes of a URL: from a copy if several processes of this node read it."""
    stream = RemoteStream(address, keep_reading, retry_seconds)
    if not is_shared():
        return stream

    def fetch() -> Iterator[bytes]:
        with closing(stream):
            while content := stream.read(READ_BYTES):
                yield content

    copy = open_copy(address, fetch, keep_reading)
    return LocalStream(address, keep_reading, copy) if copy else RemoteStream(address, keep_reading, retry_seconds)


@contextmanager
def open_shard(
    address: str, keep_reading: Callable[[], bool] = lambda: True, retry_seconds: float | None = None
) -> Iterator[ByteStream]:
    """Yield a shard's byte stream. Raises CardiganError if it cannot be read, also inside the block.

    Once `keep_reading` returns false, the next read raises ReadCancelled. A remote shard is retried for
    `retry_seconds`, by default START_RETRY_SECONDS.
    """
    seconds = START_RETRY_SECONDS if retry_seconds is None else retry_seconds
    try:
        with closing(
            _remote_stream(address, keep_reading, seconds) if is_remote(address) else LocalStream(address, keep_reading)
        ) as stream:
            yield GzipStream(stream) if is_gzip(address) else stream
    except OSError as error:
        hint = (
            "check the address and the server." if is_remote(address) else "check that the file exists and is readable."
        )
        raise CardiganError(f"Cannot read the shard {redact_query(address)} ({_error_text(error)}): {hint}") from error


def _error_text(error: OSError) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}".rstrip()
    return error_reason(
        error.reason if isinstance(error, urllib.error.URLError) and isinstance(error.reason, OSError) else error
    )
