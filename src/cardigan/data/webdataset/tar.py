"""The WebDataset layout of a tar file: consecutive files with the same key are an image and its label.

Reads a stream once from start to end. Does not know other shards or the order.
"""

import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from cardigan.data.formats.file_names import HIDDEN, NOT_AN_IMAGE, skip_reason
from cardigan.data.reader import printable
from cardigan.data.webdataset.addresses import redact_query
from cardigan.data.webdataset.byte_stream import READ_BYTES, ByteStream
from cardigan.errors import CardiganError

BLOCK = 512
MAX_MEMBER_BYTES = 1 << 43
"""Maximum plausible size of a member."""
MAX_EXTENSION_BYTES = 1 << 20
"""Maximum size of an extension header. A long name has a few hundred bytes."""
FILE_TYPES = {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE}
LINK_TYPES = {tarfile.LNKTYPE, tarfile.SYMTYPE}
EMPTY_TYPES = {*LINK_TYPES, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE}
IMAGE_WORDS = {"image", "img", "rgb", "color", "photo", "input"}
ANOTHER_IMAGE = "another image of the same key"
COMPRESSION_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZ": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}


class ShardImage(NamedTuple):
    """One image of a shard."""

    name: str
    """Its path in the shard."""
    size: int
    content: bytes
    """The file's content; empty if only headers are read."""
    label: str | int | None


@dataclass(frozen=True)
class ShardCounts:
    """The content of a shard, from its headers."""

    num_images: int
    num_bytes: int
    """Total size of the images, not of the file."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Number of entries that are not images, by reason."""


class TarMember(NamedTuple):
    """A file, link or folder in a tar file."""

    name: str
    type: bytes
    size: int
    stream: ByteStream

    def content(self) -> bytes:
        """Return the file's content. Call it once, before the next member is read."""
        return read_exactly(self.stream, self.size)


def count_shard(stream: ByteStream) -> ShardCounts:
    """Return the counts of a shard without reading its images. Raises CardiganError if it is invalid or truncated."""
    skipped: Counter[str] = Counter()
    sizes = [image.size for image in read_images(stream, skipped, contents=False)]
    return ShardCounts(len(sizes), sum(sizes), dict(skipped))


def read_images(stream: ByteStream, skipped: Counter[str], contents: bool = True) -> Iterator[ShardImage]:
    """Yield a shard's images and count other entries in `skipped`, by reason. Raises like `count_shard`."""
    for _, files in groupby(_sample_files(stream, skipped), key=lambda file: sample_key(file.name)):
        image = _image_of(files, skipped, contents)
        if image:
            yield image


def sample_key(name: str) -> str:
    """Return what files of one image have in common: the path up to the first dot of the last part."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def image_rank(name: str) -> int:
    """Return how likely a file of a sample is its image, 0 for the likeliest: x.jpg, then x.rgb.png, then x.depth.png.

    A sample may also hold depth maps, masks and views, whose names have a word before the suffix.
    """
    words = name.rpartition("/")[2].lower().split(".")[1:-1]
    return 0 if not words else 1 if IMAGE_WORDS.intersection(words) else 2


def _image_of(files: Iterable[TarMember], skipped: Counter[str], contents: bool) -> ShardImage | None:
    image_file, content, labels = None, b"", {}
    for file in files:
        suffix = file.name.rpartition(".")[2].lower()
        if not skip_reason(file.name):
            if image_file is not None:
                skipped[ANOTHER_IMAGE] += 1
            if image_file is None or image_rank(file.name) < image_rank(image_file.name):
                image_file, content = file, file.content() if contents else b""
        elif contents and suffix in ("cls", "json"):
            labels[suffix] = label_from_cls(file.content()) if suffix == "cls" else label_from_json(file.content())
    if image_file is None:
        skipped[NOT_AN_IMAGE] += 1
        return None
    cls_label = labels.get("cls")
    return ShardImage(
        printable(image_file.name), image_file.size, content, labels.get("json") if cls_label is None else cls_label
    )


def label_from_cls(content: bytes) -> str | int | None:
    """Return the class in a .cls file; None for an empty one."""
    return _parse_label(content.decode(errors="backslashreplace"))


def label_from_json(content: bytes) -> str | int | None:
    """Return the class in a .json file, its label or class; None if it holds none."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return None  # a truncated file of captions or camera data; it need not hold a label
    if not isinstance(values, dict):
        return None
    return next((label for word in ("label", "class") if (label := _parse_label(values.get(word))) is not None), None)


def _parse_label(value: object) -> str | int | None:
    """Return a class index or name; None for other values."""
    if isinstance(value, str):
        text = value.strip()
        digits = text.removeprefix("-")
        return int(text) if digits.isascii() and digits.isdecimal() and len(digits) < 19 else text or None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _sample_files(stream: ByteStream, skipped: Counter[str]) -> Iterator[TarMember]:
    """Yield the files that can belong to images."""
    for member in tar_members(stream):
        if member.type in LINK_TYPES:
            skipped["a link"] += 1
        elif member.type not in {*FILE_TYPES, tarfile.DIRTYPE}:
            skipped["a device"] += 1
        elif member.type == tarfile.DIRTYPE:
            continue
        elif member.name.startswith("/") or ".." in member.name.split("/"):
            skipped["outside the archive"] += 1
        elif skip_reason(member.name) == HIDDEN:
            skipped[HIDDEN] += 1
        else:
            yield member


def tar_members(stream: ByteStream) -> Iterator[TarMember]:
    """Yield the members of a tar file (ustar, GNU or pax) in order, up to its end mark.

    Stricter than `tarfile`, which treats a damaged header or a truncated file as the end of the archive.
    """
    extensions: dict[str, str] = {}  # fields of the next member from extension headers
    while (header := _read_header(stream)) is not None:
        size = 0 if header.type in EMPTY_TYPES else int(extensions.get("size", header.size))
        if header.type == tarfile.GNUTYPE_LONGNAME:
            extensions["path"] = _decode_name(_read_extension(stream, size).rstrip(b"\0"))
        elif header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            extensions |= _pax_records(_read_extension(stream, size), stream)
        elif header.type in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
            _read_extension(stream, size)
        else:
            if header.type == tarfile.GNUTYPE_SPARSE or any(word.startswith("GNU.sparse.") for word in extensions):
                raise _shard_error(stream, f"holds {printable(header.name)} as a sparse file: pack it without --sparse")
            end = stream.position + _round_up_to_block(size)
            yield TarMember(extensions.get("path", header.name), header.type, size, stream)
            stream.skip(end - stream.position)
            extensions = {}


def _read_header(stream: ByteStream) -> tarfile.TarInfo | None:
    """Return the next header; None at the end mark of the archive."""
    start = stream.position
    block = read_exactly(stream, BLOCK)
    if not any(block):
        return None
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        header = None
    if header is not None and 0 <= header.size <= MAX_MEMBER_BYTES:
        return header
    if start:
        raise _shard_error(stream, f"is damaged at byte {start:,}: copy, download or create it again")
    compression = next((kind for signature, kind in COMPRESSION_MAGIC.items() if block.startswith(signature)), "")
    raise _shard_error(
        stream,
        f"is {compression}, not tar: decompress it, or call it .tar.gz if it is gzip; images are compressed already"
        if compression
        else "is not a tar file: create it with tar or WebDataset",
    )


def _read_extension(stream: ByteStream, size: int) -> bytes:
    """Return the content of an extension header."""
    if size > MAX_EXTENSION_BYTES:
        raise _shard_error(stream, f"is damaged before byte {stream.position:,}: copy, download or create it again")
    return read_exactly(stream, _round_up_to_block(size))[:size]


def _pax_records(content: bytes, stream: ByteStream) -> dict[str, str]:
    """Return the keys and values of a pax header. Each record is "LENGTH KEY=VALUE\\n"."""
    found = {}
    while content.strip(b"\0"):
        length, _, rest = content.partition(b" ")
        size = int(length) if length.isdigit() and len(length) < 8 else 0
        word, equals, value = rest[: size - len(length) - 2].partition(b"=")
        if (
            not equals
            or size <= len(length)
            or (word == b"size" and not (value.isdigit() and int(value[:20]) <= MAX_MEMBER_BYTES))
        ):
            raise _shard_error(stream, f"is damaged before byte {stream.position:,}: copy, download or create it again")
        found[_decode_name(word)] = _decode_name(value)
        content = content[size:]
    return found


def _decode_name(name: bytes) -> str:
    return name.decode(errors="surrogateescape")


def _round_up_to_block(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def read_exactly(stream: ByteStream, size: int) -> bytes:
    """Return the next `size` bytes; raises CardiganError if the stream ends earlier."""
    content = stream.read(min(size, READ_BYTES)) if size else b""
    if len(content) == size:
        return content
    parts, missing = [content], size - len(content)
    # A damaged header can claim any size, so the reads are small.
    while missing and (content := stream.read(min(missing, READ_BYTES))):
        parts.append(content)
        missing -= len(content)
    if missing:
        raise _shard_error(
            stream, f"{'is truncated' if stream.position else 'is empty'}: copy, download or create it again"
        )
    return b"".join(parts)


def _shard_error(stream: ByteStream, problem: str) -> CardiganError:
    return CardiganError(f"The shard {redact_query(stream.address)} {problem}.")
