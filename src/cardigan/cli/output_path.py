"""Checks of the model that is read and of the --out option. Imports no heavy packages."""

import itertools
import webbrowser
from collections.abc import Collection
from pathlib import Path

from cardigan.errors import CardiganError

HUB_PREFIX = "hf:"


def check_model(model: Path) -> None:
    """Raise CardiganError if the model is missing. Call it before the checks of what would be written."""
    from cardigan.models.starters import located

    if str(model).startswith(HUB_PREFIX) or located(model).exists():
        return
    runs = sorted(path.parent for path in Path("runs").glob("*/generator.safetensors"))
    hint = f", such as {runs[-1]}" if runs else ""
    raise CardiganError(
        f"There is no model {model}: give a run directory{hint}, a generator.safetensors, a starter or hf:user/name."
    )


def free_path(path: Path) -> Path:
    """Return the path, or the first of NAME-2, NAME-3 and so on that does not exist."""
    if not path.exists():
        return path
    return next(
        numbered
        for number in itertools.count(2)
        if not (numbered := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists()
    )


def open_path(path: Path) -> None:
    """Show a file or a folder in the system's viewer, or say where it is."""
    if not webbrowser.open(path.absolute().as_uri()):
        print(f"No viewer was found: open {path.absolute()} yourself.")


def check_output_path(out: Path, suffixes: Collection[str], overwrite: bool) -> None:
    """Raise CardiganError unless `out` may be written.

    It needs one of the suffixes ("" is a folder), an existing parent folder, and `overwrite` to replace a file.
    """
    file_suffixes = [suffix for suffix in sorted(suffixes) if suffix]
    if file_suffixes and out.suffix not in suffixes:
        first, last = ", ".join(file_suffixes[:-1]), file_suffixes[-1]
        expected = f"a name ending in {f'{first} or {last}' if first else last}"
        raise CardiganError(
            f"--out is {str(out)!r}: expected {expected}{', or a folder (no ending)' if '' in suffixes else ''}."
        )
    if out.is_dir():
        raise CardiganError(
            f"{out} is a folder that exists already, and folders are never replaced: choose another --out."
        )
    if out.exists() and not overwrite:
        raise CardiganError(f"{out} exists already: add --overwrite to replace it, or choose another --out.")
    if not out.absolute().parent.is_dir():
        raise CardiganError(
            f"There is no folder {out.absolute().parent} to write into: create it, or choose another --out."
        )
