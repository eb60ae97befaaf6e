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

from cardigan.data.formats.file_names import error_reason, no_images_error, skip_reason, stat_signature
from cardigan.data.formats.labels import DATASET_JSON, with_dataset_json
from cardigan.data.reader import Reader, UnreadableImage, fingerprint, printable
from cardigan.errors import CardiganError

MAX_IMAGE_BYTES = 2**30
"""A member of more bytes is not read: an archive of a few bytes can claim any size."""
MAX_BYTES_IN_MEMORY = 2 * 2**30
"""Of a compressed tar archive, this many bytes of pictures are held in memory at most."""
COMPRESSION_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")
"""How files compressed by gzip, bzip2 and xz begin."""
REPLACED = "replaced by a later entry of the same name"
SYMLINK = "is a symbolic link"
ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    LZMAError,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    OverflowError,
)
"""What the standard library raises for broken archives."""


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """A file in an archive."""

    path: str
    signature: str
    """Changes if its content does."""
    read: Callable[[], bytes]
    """Raises Unreadable."""


def zip_reader(path: Path) -> Reader:
    """Return the pictures of a zip archive."""
    return _archive_reader(path, _zip_members(path), "")


def tar_reader(path: Path) -> Reader:
    """Return the pictures of a tar archive; those of a compressed one are held in memory."""
    return _archive_reader(
        path, _compressed_tar_members(path) if _is_compressed(path) else _tar_members(path), stat_signature(path)
    )


def _archive_reader(path: Path, members: Iterable[ArchiveMember], signature: str) -> Reader:
    name = str(path)
    images: dict[str, ArchiveMember] = {}
    skipped: Counter[str] = Counter()
    dataset_json: ArchiveMember | None = None
    try:
        for member in members:
            reason = REPLACED if member.path in images else skip_reason(member.path)
            if reason:
                skipped[reason] += 1
            if reason in {"", REPLACED}:
                images[member.path] = member
            elif member.path == DATASET_JSON:
                dataset_json = member
    except ARCHIVE_ERRORS as error:
        raise CardiganError(
            f"{name!r} is damaged or no archive ({error_reason(error)}): get it anew, or unpack it and give the folder."
        ) from None
    if not images:
        raise no_images_error(name, skipped)
    ordered = [images[key] for key in sorted(images, key=_sort_key)]
    reader = Reader(
        name,
        len(ordered),
        entry_name=lambda index: printable(ordered[index].path),
        read=lambda index: ordered[index].read(),
        fingerprint=fingerprint([signature, *(part for member in ordered for part in (member.path, member.signature))]),
        skipped=dict(skipped),
    )
    return reader if dataset_json is None else with_dataset_json(reader, _read_dataset_json(name, dataset_json))


def _read_dataset_json(name: str, member: ArchiveMember) -> bytes:
    try:
        return member.read()
    except UnreadableImage as error:
        raise CardiganError(f"{member.path} of {name!r} {error}: take it away, or mend it.") from None


def _sort_key(path: str) -> bytes:
    return path.encode(errors="surrogateescape")


def _normalize_path(path: str) -> str:
    return path.replace("\\", "/").removeprefix("./")


def _escapes_archive(path: str) -> bool:
    return path.startswith("/") or ".." in path.split("/") or re.match("[A-Za-z]:", path) is not None


def _raise_unreadable(reason: str) -> NoReturn:
    raise UnreadableImage(reason)


def _return_content(content: bytes) -> bytes:
    return content


def _read_range(path: Path, start: int, length: int) -> bytes:
    if length > MAX_IMAGE_BYTES:
        raise UnreadableImage(f"has {length:,} bytes: at most {MAX_IMAGE_BYTES:,} are read for one picture")
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            content = file.read(length)
    except (OSError, ValueError, OverflowError) as error:
        raise UnreadableImage(f"cannot be read ({error_reason(error)})") from None
    if len(content) != length:
        raise UnreadableImage("is cut off")
    return content


def _zip_members(path: Path) -> Iterator[ArchiveMember]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename and not info.is_dir():  # zipfile looks at the last letter of a name
                member_path = _normalize_path(info.filename)
                yield ArchiveMember(
                    member_path, f"{info.file_size} {info.CRC}", _zip_member_reader(path, info, member_path)
                )


def _zip_member_reader(path: Path, info: zipfile.ZipInfo, member_path: str) -> Callable[[], bytes]:
    if _escapes_archive(member_path):
        return partial(_raise_unreadable, "has a path that leaves the archive")
    if S_ISLNK(info.external_attr >> 16):
        return partial(_raise_unreadable, SYMLINK)
    if info.flag_bits & 1:
        return partial(_raise_unreadable, "is encrypted")
    return partial(
        _read_zip_member, path, info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC
    )


def _read_zip_member(
    path: Path, header_offset: int, compressed_size: int, size: int, method: int, checksum: int
) -> bytes:
    """Return a member's content. The names in its own header, after which it begins, may be longer than in the archive's list."""
    local_header = _read_range(path, header_offset, 30)
    if local_header[:4] != b"PK\x03\x04":
        raise UnreadableImage("is damaged (it does not begin where the archive's list says)")
    lengths = int.from_bytes(local_header[26:28], "little") + int.from_bytes(local_header[28:30], "little")
    content = _decompress(_read_range(path, header_offset + 30 + lengths, compressed_size), method, size)
    if len(content) != size or zlib.crc32(content) != checksum:
        raise UnreadableImage("is damaged (its checksum is not the archive's)")
    return content


def _decompress(compressed: bytes, method: int, size: int) -> bytes:
    if size > MAX_IMAGE_BYTES:
        raise UnreadableImage(f"has {size:,} bytes: at most {MAX_IMAGE_BYTES:,} are read for one picture")
    try:
        if method == zipfile.ZIP_DEFLATED:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(compressed, size + 1)
        if method == zipfile.ZIP_BZIP2:
            return BZ2Decompressor().decompress(compressed, size + 1)
    except (zlib.error, OSError, EOFError) as error:
        raise UnreadableImage(f"is damaged ({error_reason(error)})") from None
    if method != zipfile.ZIP_STORED:
        raise UnreadableImage(
            f"is compressed by method {method}, which is not read: make the archive anew with deflate"
        )
    return compressed


def _is_compressed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6).startswith(COMPRESSION_MAGIC)


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


def _tar_members(path: Path) -> Iterator[ArchiveMember]:
    with tarfile.open(path, "r:") as archive:
        for info in _tar_infos(archive):
            yield _tar_member(info, partial(_read_range, path, info.offset_data, info.size))


def _compressed_tar_members(path: Path) -> Iterator[ArchiveMember]:
    num_bytes = 0
    with tarfile.open(path, "r:*") as archive:
        for info in _tar_infos(archive):
            is_needed = info.isreg() and (not skip_reason(info.name) or _normalize_path(info.name) == DATASET_JSON)
            num_bytes += info.size if is_needed else 0
            if num_bytes > MAX_BYTES_IN_MEMORY:
                raise CardiganError(
                    f"{str(path)!r} holds more than {MAX_BYTES_IN_MEMORY:,} bytes of pictures and, being compressed, cannot be read in place: "
                    "decompress it first (gunzip, bunzip2 or unxz), and give the .tar."
                )
            file = archive.extractfile(info) if is_needed else None
            yield _tar_member(info, partial(_return_content, b"" if file is None else file.read()))


def _tar_member(info: tarfile.TarInfo, content: Callable[[], bytes]) -> ArchiveMember:
    member_path = _normalize_path(info.name)
    refusals = {
        "has a path that leaves the archive": _escapes_archive(member_path),
        SYMLINK: info.issym(),
        "is a hard link": info.islnk(),
        "is stored with holes": info.issparse(),
        "is no file": not info.isreg(),
    }
    reason = next((why for why, refused in refusals.items() if refused), "")
    return ArchiveMember(
        member_path, f"{info.size} {info.mtime}", partial(_raise_unreadable, reason) if reason else content
    )
