"""The disk cache: files under ~/.cache/cardigan, named by a hash of everything they depend on.

A damaged file is computed again. Deleting the folder costs only time.
"""

import hashlib
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file
from torch import Tensor

from cardigan.errors import CardiganError
from cardigan.files import atomic
from cardigan.files.tensors import write_tensors

LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1"}
"""Hosts for which plain http is accepted, since the connection stays on this machine."""
READ_BYTES = 1 << 20


def cache_dir() -> Path:
    """Return the cache folder: $CARDIGAN_CACHE, or cardigan in the user's cache folder."""
    override = os.environ.get("CARDIGAN_CACHE")
    base = Path(override) if override else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cardigan"
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CardiganError(
            f"Cannot create the cache folder {base}: {error.strerror}. Set CARDIGAN_CACHE to another folder."
        ) from error
    return base


def cache_key(*parts: str | bytes | Tensor) -> str:
    """Return a hash of everything a cached file depends on."""
    digest = hashlib.sha256()
    for part in parts:
        content = (
            part.contiguous().numpy().tobytes()
            if isinstance(part, Tensor)
            else part.encode()
            if isinstance(part, str)
            else part
        )
        digest.update(f"{len(content)}:".encode() + content)
    return digest.hexdigest()


def load_or_compute_tensors(key: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors cached under `key`. Compute and cache them the first time."""
    path = cache_dir() / f"{key}.safetensors"
    if path.exists():
        try:
            return load_file(path)
        except (safetensors.SafetensorError, OSError):
            atomic.remove(path)
    tensors = compute()
    write_tensors(path, tensors, {})
    return tensors


def load_or_compute_json(key: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the JSON values cached under `key`. Compute and cache them the first time."""
    path = cache_dir() / f"{key}.json"
    if path.exists():
        try:
            return json.loads(path.read_bytes())
        except ValueError:
            atomic.remove(path)
    values = compute()
    atomic.write_bytes(path, json.dumps(values).encode())
    return values


def download(url_with_hash: str) -> Path:
    """Return the local file of `https://...#sha256=HASH`. Download it the first time.

    Raises CardiganError for a URL without a checksum, for plain http to another machine, and for a wrong checksum.
    """
    url, _, sha256 = url_with_hash.partition("#sha256=")
    parsed = urllib.parse.urlparse(url)
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise CardiganError(f"{url} has no checksum: add #sha256= and the 64 hex digits of the file.")
    if parsed.scheme != "https" and not (parsed.scheme == "http" and parsed.hostname in LOCAL_HOSTS):
        raise CardiganError(f"{url} is not https: give an https URL or a file.")
    path = cache_dir() / f"{sha256}{Path(parsed.path).suffix}"
    if not path.exists():
        _download_to(url, sha256, path)
    return path


def _download_to(url: str, sha256: str, path: Path) -> None:
    digest = hashlib.sha256()
    with atomic.atomic_path(path) as temporary:
        try:
            with urllib.request.urlopen(url, timeout=60) as response, temporary.open("wb") as file:
                while chunk := response.read(READ_BYTES):
                    digest.update(chunk)
                    file.write(chunk)
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise CardiganError(f"Cannot download {url} ({error}): download it yourself and give the file.") from error
        if digest.hexdigest() != sha256:
            raise CardiganError(
                f"{url} has the checksum {digest.hexdigest()}, not the given one: the file was changed or damaged, "
                "do not use it."
            )
