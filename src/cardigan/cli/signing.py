"""`--c2pa-cert` and `--c2pa-key`: the key that signs what a command writes."""

from pathlib import Path
from typing import TYPE_CHECKING

from cardigan.errors import CardiganError

if TYPE_CHECKING:
    from cardigan.figures.c2pa_manifest import SigningKey


def find_signing_key(certificates: Path | None, key: Path | None, mark: bool = True) -> "SigningKey | None":
    """Return the key of two PEM files, or None without them.

    Raises CardiganError for one without the other, without marks, and if they cannot sign.
    """
    if certificates is None and key is None:
        return None
    if certificates is None or key is None:
        given, missing = ("--c2pa-key", "--c2pa-cert") if certificates is None else ("--c2pa-cert", "--c2pa-key")
        raise CardiganError(f"{given} needs {missing} too: give the certificate chain and its private key.")
    if not mark:
        raise CardiganError("A C2PA manifest says what the mark says, so --no-mark cannot go with --c2pa-cert.")

    from cardigan.figures.c2pa_manifest import signing_key

    return signing_key(certificates, key)
