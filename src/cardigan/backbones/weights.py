"""Read weights that a user provides. Only safetensors files are accepted."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cardigan.errors import CardiganError

PICKLE_SUFFIXES = {".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt"}


def load_weights(path: Path, setting: str = "--weights") -> dict[str, Tensor]:
    """Return the tensors of a safetensors file. Raises CardiganError for any other file, which `setting` gave."""
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise CardiganError(f"{path} {problem}: give a .safetensors file with {setting}.")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        kind = (
            "may be a pickle, which can run code and is never loaded"
            if path.suffix in PICKLE_SUFFIXES
            else "is not a safetensors file, or is damaged"
        )
        raise CardiganError(f"{path} {kind}: convert it to safetensors first (docs/guides/evaluation.md).") from error
