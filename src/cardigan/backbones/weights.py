"""Weights that a user gives: safetensors, or refused.

Reads one file; knows no network and no pickle.
"""

import hashlib
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cardigan.errors import CardiganError

PICKLE_SUFFIXES = {".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt"}


def load_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file; raises CardiganError for anything else."""
    if not path.is_file():
        raise CardiganError(f"There is no file of weights {path}: give a .safetensors file with --weights.")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        kind = (
            "may be a pickle, which can run code and is never loaded"
            if path.suffix in PICKLE_SUFFIXES
            else "is no safetensors file, or damaged"
        )
        raise CardiganError(f"{path} {kind}: convert it to safetensors first (docs/guides/evaluation.md).") from error


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
