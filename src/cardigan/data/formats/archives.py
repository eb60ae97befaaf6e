"""Pictures in zip and tar archives, read in place: nothing is ever written to the disk.

A member that is a link, encrypted, or of a path that leaves the archive is never followed; each piece of a file is read by opening it
anew, so processes forked from one another share nothing.
"""

import re
import struct
import tarfile
import zipfile
import zlib
from bz2 import BZ2Decompressor
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from lzma import LZMAError
from pathlib import Path
from stat import S_ISLNK
from typing import NoReturn

from cardigan.data.formats.entries import no_pictures, reason, stamp, why_not
from cardigan.data.formats.labels import DATASET_JSON, with_dataset_json
from cardigan.data.reader import Reader, Unreadable, fingerprint, shown
from cardigan.errors import CardiganError

LARGEST_PICTURE = 2**30
"""A member of more bytes is not read: an archive of a few bytes can claim any size."""
HELD_IN_MEMORY = 2 * 2**30
"""Of a compressed tar archive, this many bytes of pictures are held in memory at most."""
PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")
"""How files compressed by gzip, bzip2 and xz begin."""
REPLACED = "replaced by a later one of that name"
LINKED = "is a symbolic link"
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, LZMAError, struct.error, EOFError, OSError, RuntimeError, ValueError, OverflowError)
"""What the standard library raises for broken archives."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive."""

    path: str
    mark: str
    """Changes if its content does."""
    content: Callable[[], bytes]
    """Raises Unreadable."""


def zip_reader(path: Path) -> Reader:
    """Return the pictures of a zip archive."""
    return _reader(path, _zip_members(path), "")


def tar_reader(path: Path) -> Reader:
    """Return the pictures of a tar archive; those of a compressed one are held in memory."""
    return _reader(path, _packed_tar_members(path) if _is_packed(path) else _tar_members(path), stamp(path))


def _reader(path: Path, members: Iterable[Member], mark: str) -> Reader:
    name = str(path)
    pictures: dict[str, Member] = {}
    passed_over: Counter[str] = Counter()
    table: Member | None = None
    try:
        for member in members:
            why = REPLACED if member.path in pictures else why_not(member.path)
            if why:
                passed_over[why] += 1
            if why in {"", REPLACED}:
                pictures[member.path] = member
            elif member.path == DATASET_JSON:
                table = member
    except DAMAGE as error:
        raise CardiganError(f"{name!r} is damaged or no archive ({reason(error)}): get it anew, or unpack it and give the folder.") from None
    if not pictures:
        raise no_pictures(name, passed_over)
    ordered = [pictures[key] for key in sorted(pictures, key=_in_bytes)]
    reader = Reader(
        name,
        len(ordered),
        title=lambda index: shown(ordered[index].path),
        read=lambda index: ordered[index].content(),
        fingerprint=fingerprint([mark, *(part for member in ordered for part in (member.path, member.mark))]),
        passed_over=dict(passed_over),
    )
    return reader if table is None else with_dataset_json(reader, _told(name, table))


def _told(name: str, table: Member) -> bytes:
    try:
        return table.content()
    except Unreadable as error:
        raise CardiganError(f"{table.path} of {name!r} {error}: take it away, or mend it.") from None


def _in_bytes(path: str) -> bytes:
    return path.encode(errors="surrogateescape")


def _tidy(path: str) -> str:
    return path.replace("\\", "/").removeprefix("./")


def _leaves(path: str) -> bool:
    return path.startswith("/") or ".." in path.split("/") or re.match("[A-Za-z]:", path) is not None


def _refused(why: str) -> NoReturn:
    raise Unreadable(why)


def _held(content: bytes) -> bytes:
    return content


def _piece(path: Path, start: int, length: int) -> bytes:
    if length > LARGEST_PICTURE:
        raise Unreadable(f"has {length:,} bytes: at most {LARGEST_PICTURE:,} are read for one picture")
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            content = file.read(length)
    except (OSError, ValueError, OverflowError) as error:
        raise Unreadable(f"cannot be read ({reason(error)})") from None
    if len(content) != length:
        raise Unreadable("is cut off")
    return content


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename and not info.is_dir():  # zipfile looks at the last letter of a name
                tidy = _tidy(info.filename)
                yield Member(tidy, f"{info.file_size} {info.CRC}", _zip_content(path, info, tidy))


def _zip_content(path: Path, info: zipfile.ZipInfo, tidy: str) -> Callable[[], bytes]:
    if _leaves(tidy):
        return partial(_refused, "has a path that leaves the archive")
    if S_ISLNK(info.external_attr >> 16):
        return partial(_refused, LINKED)
    if info.flag_bits & 1:
        return partial(_refused, "is encrypted")
    return partial(_unzipped, path, info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC)


def _unzipped(path: Path, header: int, packed: int, size: int, method: int, checksum: int) -> bytes:
    """Return a member's content. The names in its own header, after which it begins, may be longer than in the archive's list."""
    local = _piece(path, header, 30)
    if local[:4] != b"PK\x03\x04":
        raise Unreadable("is damaged (it does not begin where the archive's list says)")
    lengths = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    content = _unpacked(_piece(path, header + 30 + lengths, packed), method, size)
    if len(content) != size or zlib.crc32(content) != checksum:
        raise Unreadable("is damaged (its checksum is not the archive's)")
    return content


def _unpacked(packed: bytes, method: int, size: int) -> bytes:
    if size > LARGEST_PICTURE:
        raise Unreadable(f"has {size:,} bytes: at most {LARGEST_PICTURE:,} are read for one picture")
    try:
        if method == zipfile.ZIP_DEFLATED:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size + 1)
        if method == zipfile.ZIP_BZIP2:
            return BZ2Decompressor().decompress(packed, size + 1)
    except (zlib.error, OSError, EOFError) as error:
        raise Unreadable(f"is damaged ({reason(error)})") from None
    if method != zipfile.ZIP_STORED:
        raise Unreadable(f"is compressed by method {method}, which is not read: make the archive anew with deflate")
    return packed


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6).startswith(PACKED)


def _tar_infos(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members one by one, keeping none: a million of them would fill a gigabyte."""
    while (info := archive.next()) is not None:
        archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
        if not info.isdir():
            yield info
    if archive.fileobj is not None:
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError("a member's header is broken")  # tarfile takes it for the end


def _tar_members(path: Path) -> Iterator[Member]:
    with tarfile.open(path, "r:") as archive:
        for info in _tar_infos(archive):
            yield _tar_member(info, partial(_piece, path, info.offset_data, info.size))


def _packed_tar_members(path: Path) -> Iterator[Member]:
    held = 0
    with tarfile.open(path, "r:*") as archive:
        for info in _tar_infos(archive):
            wanted = info.isreg() and (not why_not(info.name) or _tidy(info.name) == DATASET_JSON)
            held += info.size if wanted else 0
            if held > HELD_IN_MEMORY:
                raise CardiganError(
                    f"{str(path)!r} holds more than {HELD_IN_MEMORY:,} bytes of pictures and, being compressed, cannot be read in place: "
                    "decompress it first (gunzip, bunzip2 or unxz), and give the .tar."
                )
            file = archive.extractfile(info) if wanted else None
            yield _tar_member(info, partial(_held, b"" if file is None else file.read()))


def _tar_member(info: tarfile.TarInfo, content: Callable[[], bytes]) -> Member:
    tidy = _tidy(info.name)
    refusals = {
        "has a path that leaves the archive": _leaves(tidy),
        LINKED: info.issym(),
        "is a hard link": info.islnk(),
        "is stored with holes": info.issparse(),
        "is no file": not info.isreg(),
    }
    why = next((why for why, refused in refusals.items() if refused), "")
    return Member(tidy, f"{info.size} {info.mtime}", partial(_refused, why) if why else content)
