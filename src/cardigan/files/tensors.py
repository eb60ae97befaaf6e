"""Tensors with metadata in one safetensors file, never pickle.

Does not know what the tensors mean.
"""

import json
import os
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file

from cardigan.errors import CardiganError
from cardigan.files import atomic
from cardigan.files.special_files import reject_special_file

METADATA_KEY = "cardigan"
CARD_KEY = "card"
"""Key of the model card in the metadata, for people; no code reads it.

It is not a separate header entry, because safetensors writes several entries in any order.
"""


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, Any], card: str = "") -> None:
    """Write named tensors and JSON metadata atomically into one file. Equal content gives equal bytes."""
    header = {METADATA_KEY: json.dumps({**metadata, **({CARD_KEY: card} if card else {})}, sort_keys=True)}
    contiguous = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic.atomic_path(path) as temporary:
        try:
            save_file(contiguous, temporary, metadata=header)
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from error
        temporary.chmod(0o644)  # safetensors makes it readable by the owner only, but the file is meant for sharing
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the JSON metadata of a file without reading a tensor."""
    with _open(path) as file:
        return _parse_metadata(path, file.metadata())


def read_tensors(path: Path, prefix: str = "") -> dict[str, torch.Tensor]:
    """Return the tensors whose names start with `prefix`, on the CPU, named without the prefix."""
    with _open(path) as file:
        return {name.removeprefix(prefix): file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}


def _open(path: Path) -> Any:
    try:
        reject_special_file(path)
        check_header_size(path)
        return safetensors.safe_open(path, framework="pt")
    except FileNotFoundError as error:
        raise CardiganError(
            f"There is no file {path}: give a run directory, a checkpoint or a generator.safetensors."
        ) from error
    except (OSError, safetensors.SafetensorError) as error:
        raise CardiganError(
            f"{path} {_describe_file(path)}: give a generator.safetensors that cardigan wrote."
        ) from error


def _describe_file(path: Path) -> str:
    """Return what a file that is not safetensors seems to be, from its first bytes and its name."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        return f"cannot be read ({(error.strerror or str(error)).lower()})"
    if head[:2] == b"PK" or head[:1] == b"\x80" or path.suffix in {".pkl", ".pickle", ".pt", ".pth"}:
        return "looks like a pickle, which can run code and is never loaded"
    return "is truncated or damaged" if path.suffix == ".safetensors" else "is no safetensors file"


def _parse_metadata(path: Path, metadata: dict[str, str] | None) -> dict[str, Any]:
    try:
        fields = json.loads((metadata or {})[METADATA_KEY])
    except (KeyError, ValueError, RecursionError) as error:
        raise CardiganError(
            f"{path} was not written by cardigan (its header has no cardigan metadata): "
            "give a generator.safetensors or a run directory."
        ) from error
    if not isinstance(fields, dict):
        raise CardiganError(f"{path} has a damaged header: give another copy of it.")
    return fields


MAX_HEADER_BYTES = 16 * 2**20
"""Maximum size of a header: about ten thousand tensors, or several hundred thousand class names."""


def check_header_size(path: Path) -> None:
    """Raise CardiganError for a file with too large a header. The reader rejects a file shorter than its header."""
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
    if MAX_HEADER_BYTES < header_bytes <= path.stat().st_size:
        raise CardiganError(
            f"{path} has a header of {header_bytes:,} bytes, and no model needs more than {MAX_HEADER_BYTES:,}: "
            "give another copy of it."
        )
