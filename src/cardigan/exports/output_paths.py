"""Output paths: default names, the path of the model card, and checks against overwriting.

Writes nothing.
"""

from pathlib import Path

from cardigan.errors import CardiganError
from cardigan.exports.interface import ExportFormat, ExportSettings
from cardigan.models.snapshot import weights_file


def model_name(model: Path | None) -> str:
    """Return a model's name: that of its run (plus the images seen of a checkpoint) or of its file."""
    if model is None:
        return "generator"
    resolved = model.resolve()
    checkpoint = resolved.parent if resolved.name == "state.safetensors" else resolved
    if checkpoint.parent.name == "checkpoints":
        return f"{checkpoint.parents[1].name}-{checkpoint.name}"
    return resolved.stem if resolved.is_file() else resolved.name


def default_path(model: Path | None, format: ExportFormat, settings: ExportSettings) -> Path:
    """Return the model's name with the format's suffix, in the current folder."""
    weights_suffix = "" if settings.weights == format.weight_dtypes[0] else f"-{settings.weights}"
    return Path(f"{model_name(model)}{weights_suffix}{format.suffixes[0] or '-samples'}")


def model_card_path(out: Path) -> Path:
    return out.with_name(f"{out.name}.card.md")


def check_output(out: Path, format: ExportFormat, overwrite: bool) -> None:
    """Raise CardiganError unless the file or folder may be written there."""
    if out.suffix not in format.suffixes:
        endings = " or ".join(suffix for suffix in format.suffixes if suffix)
        folder = ", or a folder (no ending)" if "" in format.suffixes else ""
        raise CardiganError(
            f"The {format.title} cannot be named {str(out)!r}: expected a name ending in {endings}{folder}."
        )
    if not out.suffix or (_exists(out) and out.is_dir()):
        return check_new_folder(out)
    for path in (out, model_card_path(out)):
        if _exists(path) and not overwrite:
            raise CardiganError(f"{path} exists already: add --overwrite to replace it, or choose another --out.")
        if path.is_dir():
            raise CardiganError(f"{path} is a folder, and folders are never replaced: choose another --out.")
    return _check_parent(out)


def check_new_folder(out: Path) -> None:
    """Raise CardiganError unless a new folder may be created there."""
    if _exists(out):
        raise CardiganError(f"{out} exists already, and folders are never replaced: choose another --out.")
    _check_parent(out)


def check_not_source(out: Path, model: Path | None) -> None:
    """Raise CardiganError if an export would replace its own source."""
    if model is not None and out.exists() and out.resolve() == weights_file(model).resolve():
        raise CardiganError(f"{out} is the model itself, and the export would replace it: choose another --out.")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise CardiganError(
            f"{str(path)[:80]!r}... cannot be written ({(error.strerror or str(error)).lower()}): choose another --out."
        ) from error


def _check_parent(out: Path) -> None:
    if not out.absolute().parent.is_dir():
        raise CardiganError(f"The folder {out.absolute().parent} does not exist: create it, or choose another --out.")
