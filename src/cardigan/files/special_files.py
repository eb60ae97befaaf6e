"""Named pipes, devices and sockets: opening one as a file can wait forever."""

import stat
from pathlib import Path

from cardigan.errors import CardiganError, escape_control_characters

SPECIAL_FILES = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def reject_special_file(path: Path) -> None:
    """Raise CardiganError for a named pipe, a device or a socket, without opening it. Raises OSError if missing."""
    kind = SPECIAL_FILES.get(stat.S_IFMT(path.stat().st_mode))
    if kind is not None:
        raise CardiganError(
            f"{escape_control_characters(str(path))!r} is {kind}: expected a file or a folder; copy its content into "
            "a file first."
        )
