"""Checks of the --out option. Imports no heavy packages."""

from collections.abc import Collection
from pathlib import Path

from cardigan.errors import CardiganError


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
