"""Images in zip and tar archives, read in place: nothing is unpacked to disk.

Links, encrypted members, and paths outside the archive are never read. Each read opens the file again, so that forked
processes share no file position.
"""

import re
import struct
import tarfile
import zipfile
import zlib
from bz2 import BZ2Decompressor
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from lzma import LZMAError
from pathlib import Path
from stat import S_ISLNK
from typing import NoReturn

from cardigan.data.formats.file_names import HIDDEN, no_images_error, normalize_path, skip_reason
from cardigan.data.formats.labels import DATASET_JSON, with_dataset_json
from cardigan.data.reader import Reader, UnreadableImage, fingerprint, printable, stat_signature
from cardigan.data.webdataset.tar import ANOTHER_IMAGE, image_rank, label_from_cls, label_from_json, sample_key
from cardigan.errors import CardiganError, error_reason

MAX_IMAGE_BYTES = 2**30
"""Maximum size of a member. A tiny archive can claim any size."""
MAX_BYTES_IN_MEMORY = 2 * 2**30
"""Maximum total size of the images of a compressed tar archive."""
COMPRESSION_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")
"""First bytes of gzip, bzip2 and xz files."""
SAMPLE_LABEL_SUFFIXES = (".cls", ".json")
"""Files with the class of the image of the same key, in WebDataset's layout; also dataset.json."""
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
"""Errors that the standard library raises for broken archives."""


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """A file in an archive."""

    path: str
    signature: str
    """Changes if the content changes."""
    read: Callable[[], bytes]
    """Raises UnreadableImage."""


def zip_reader(path: Path) -> Reader:
    """Return the images of a zip archive."""
    return _archive_reader(path, _zip_members(path), "")


def tar_reader(path: Path) -> Reader:
    """Return the images of a tar archive. A compressed archive is loaded into memory."""
    return _archive_reader(
        path, _compressed_tar_members(path) if _is_compressed(path) else _tar_members(path), stat_signature(path), True
    )


def _archive_reader(
    path: Path, members: Iterable[ArchiveMember], signature: str, may_have_samples: bool = False
) -> Reader:
    name = str(path)
    images: dict[str, ArchiveMember] = {}
    skipped: Counter[str] = Counter()
    dataset_jsons: dict[str, ArchiveMember] = {}
    label_members: dict[str, list[ArchiveMember]] = {}
    try:
        for member in members:
            reason = REPLACED if member.path in images else skip_reason(member.path)
            if reason:
                skipped[reason] += 1
            if reason in {"", REPLACED}:
                images[member.path] = member
            elif member.path.rpartition("/")[2] == DATASET_JSON:
                dataset_jsons[member.path.rpartition("/")[0]] = member
            elif may_have_samples and _is_sample_label(member.path):
                label_members.setdefault(sample_key(member.path), []).append(member)
    except ARCHIVE_ERRORS as error:
        raise CardiganError(
            f"{name!r} is damaged or not an archive ({error_reason(error)}): get it again, or unpack it and give the "
            "folder."
        ) from None
    if not images:
        raise no_images_error(name, skipped)
    has_samples = any(sample_key(name) in label_members for name in images)
    if has_samples:
        images = _one_image_per_sample(images, skipped)
    ordered = [images[key] for key in sorted(images, key=_sort_key)]
    reader = Reader(
        name,
        len(ordered),
        entry_name=lambda index: printable(ordered[index].path),
        read=lambda index: ordered[index].read(),
        fingerprint=fingerprint([signature, *(part for member in ordered for part in (member.path, member.signature))]),
        skipped=dict(skipped),
    )
    if has_samples:
        reader = _with_sample_labels(reader, ordered, label_members)
    return with_dataset_json(
        reader, {folder: _read_dataset_json(name, member) for folder, member in dataset_jsons.items()}
    )


def _is_sample_label(path: str) -> bool:
    return path.lower().endswith(SAMPLE_LABEL_SUFFIXES) and skip_reason(path) != HIDDEN


def _one_image_per_sample(images: dict[str, ArchiveMember], skipped: Counter[str]) -> dict[str, ArchiveMember]:
    """Return one image for each key of WebDataset's layout, as the stream of shards does."""
    samples: dict[str, ArchiveMember] = {}
    for name, member in images.items():
        known = samples.setdefault(sample_key(name), member)
        if known is not member:
            skipped[ANOTHER_IMAGE] += 1
        if image_rank(name) < image_rank(known.path):
            samples[sample_key(name)] = member
    return {member.path: member for member in samples.values()}


def _with_sample_labels(
    reader: Reader, images: Sequence[ArchiveMember], label_members: Mapping[str, Sequence[ArchiveMember]]
) -> Reader:
    """Return the reader with the classes of the .cls and .json files beside the images."""
    labels = [_sample_label(label_members.get(sample_key(image.path), ())) for image in images]
    return reader if all(label is None for label in labels) else replace(reader, labels=labels)


def _sample_label(members: Iterable[ArchiveMember]) -> str | int | None:
    """Return the class in the first file that holds one, a .cls file before a .json file."""
    for member in sorted(members, key=lambda member: not member.path.lower().endswith(".cls")):
        with suppress(UnreadableImage):
            content = member.read()
            label = label_from_cls(content) if member.path.lower().endswith(".cls") else label_from_json(content)
            if label is not None:
                return label
    return None


def _read_dataset_json(name: str, member: ArchiveMember) -> bytes:
    try:
        return member.read()
    except UnreadableImage as error:
        raise CardiganError(f"{member.path} of {name!r} {error}: remove it or repair it.") from None


def _sort_key(path: str) -> bytes:
    return path.encode(errors="surrogateescape")


def _escapes_archive(path: str) -> bool:
    return path.startswith("/") or ".." in path.split("/") or re.match("[A-Za-z]:", path) is not None


def _raise_unreadable(reason: str) -> NoReturn:
    raise UnreadableImage(reason)


def _return_content(content: bytes) -> bytes:
    return content


def _read_range(path: Path, start: int, length: int) -> bytes:
    if length > MAX_IMAGE_BYTES:
        raise UnreadableImage(f"has {length:,} bytes: expected at most {MAX_IMAGE_BYTES:,}")
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            content = file.read(length)
    except (OSError, ValueError, OverflowError) as error:
        raise UnreadableImage(f"cannot be read ({error_reason(error)})") from None
    if len(content) != length:
        raise UnreadableImage("is truncated")
    return content


def _zip_members(path: Path) -> Iterator[ArchiveMember]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename and not info.is_dir():  # is_dir reads the last character of the name
                member_path = normalize_path(info.filename)
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
    """Return a member's content. It starts after the local header, whose size can differ from the directory entry."""
    local_header = _read_range(path, header_offset, 30)
    if local_header[:4] != b"PK\x03\x04":
        raise UnreadableImage("is damaged (it does not start where the archive's directory says)")
    lengths = int.from_bytes(local_header[26:28], "little") + int.from_bytes(local_header[28:30], "little")
    content = _decompress(_read_range(path, header_offset + 30 + lengths, compressed_size), method, size)
    if len(content) != size or zlib.crc32(content) != checksum:
        raise UnreadableImage("is damaged (its checksum is wrong)")
    return content


def _decompress(compressed: bytes, method: int, size: int) -> bytes:
    if size > MAX_IMAGE_BYTES:
        raise UnreadableImage(f"has {size:,} bytes: expected at most {MAX_IMAGE_BYTES:,}")
    try:
        if method == zipfile.ZIP_DEFLATED:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(compressed, size + 1)
        if method == zipfile.ZIP_BZIP2:
            return BZ2Decompressor().decompress(compressed, size + 1)
    except (zlib.error, OSError, EOFError) as error:
        raise UnreadableImage(f"is damaged ({error_reason(error)})") from None
    if method != zipfile.ZIP_STORED:
        raise UnreadableImage(
            f"is compressed by method {method}, which is not supported: create the archive again with deflate"
        )
    return compressed


def _is_compressed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6).startswith(COMPRESSION_MAGIC)


def _tar_infos(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members one by one without storing them: a million of them take a gigabyte."""
    while (info := archive.next()) is not None:
        archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
        if not info.isdir():
            yield info
    if archive.fileobj is not None:
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError("a member's header is broken")  # tarfile treats it as the end


def _tar_members(path: Path) -> Iterator[ArchiveMember]:
    with tarfile.open(path, "r:") as archive:
        for info in _tar_infos(archive):
            yield _tar_member(info, partial(_read_range, path, info.offset_data, info.size))


def _compressed_tar_members(path: Path) -> Iterator[ArchiveMember]:
    num_bytes = 0
    with tarfile.open(path, "r:*") as archive:
        for info in _tar_infos(archive):
            is_needed = info.isreg() and (not skip_reason(info.name) or _is_sample_label(info.name))
            num_bytes += info.size if is_needed else 0
            if num_bytes > MAX_BYTES_IN_MEMORY:
                raise CardiganError(
                    f"{str(path)!r} holds more than {MAX_BYTES_IN_MEMORY:,} bytes of images, and a compressed archive "
                    "cannot be read in place: decompress it first (gunzip, bunzip2 or unxz), and give the .tar."
                )
            file = archive.extractfile(info) if is_needed else None
            yield _tar_member(info, partial(_return_content, b"" if file is None else file.read()))


def _tar_member(info: tarfile.TarInfo, content: Callable[[], bytes]) -> ArchiveMember:
    member_path = normalize_path(info.name)
    refusals = {
        "has a path that leaves the archive": _escapes_archive(member_path),
        SYMLINK: info.issym(),
        "is a hard link": info.islnk(),
        "is a sparse file": info.issparse(),
        "is not a file": not info.isreg(),
    }
    reason = next((why for why, refused in refusals.items() if refused), "")
    return ArchiveMember(
        member_path, f"{info.size} {info.mtime}", partial(_raise_unreadable, reason) if reason else content
    )
