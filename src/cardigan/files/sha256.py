"""SHA-256 of files and JSON values: computed, and checked against an expected one."""

import hashlib
import json
from pathlib import Path

from cardigan.errors import CardiganError
from cardigan.files.special_files import reject_special_file

SHA256_DIGITS = 64


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits. Raises CardiganError if it cannot be read."""
    try:
        reject_special_file(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CardiganError(
            f"{path} cannot be read ({(error.strerror or str(error)).lower()}): use another copy."
        ) from error


def json_sha256(value: object) -> str:
    """Return the SHA-256 of a JSON value. It does not depend on the order of keys or on the layout of the text."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def check_sha256(path: Path, expected: object) -> None:
    """Raise CardiganError unless the file has this SHA-256 (64 hexadecimal digits)."""
    expected_sha256 = expected.lower().removeprefix("sha256:") if isinstance(expected, str) else ""
    if len(expected_sha256) != SHA256_DIGITS or set(expected_sha256) - set("0123456789abcdef"):
        raise CardiganError(
            f"sha256 is {str(expected)[:80]!r}: expected the 64 hexadecimal digits of a file's SHA-256."
        )
    found = file_sha256(path)
    if found != expected_sha256:
        raise CardiganError(
            f"{path} has the SHA-256 {found}, not the expected {expected_sha256}: "
            "the file was changed or damaged, so do not use it."
        )
