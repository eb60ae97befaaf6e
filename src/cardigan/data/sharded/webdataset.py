"""The WebDataset layout of a tar file: files of one key that stand together are a picture and what is told of it.

Reads a stream from its beginning to its end, once. Knows nothing of other shards or of order.
"""

import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from cardigan.data.formats.entries import HIDDEN, NO_PICTURE, why_not
from cardigan.data.reader import shown
from cardigan.data.sharded.names import told
from cardigan.data.sharded.opened import PIECE, Stream
from cardigan.errors import CardiganError

BLOCK = 512
LARGEST = 1 << 43
"""Most bytes a member is believed to have."""
NOTE = 1 << 20
"""Most bytes of a header that belongs to another one; a long name has a few hundred."""
FILES = {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE}
LINKS = {tarfile.LNKTYPE, tarfile.SYMTYPE}
WITHOUT_CONTENT = {*LINKS, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE}
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}


class Picture(NamedTuple):
    """One picture of a shard."""

    name: str
    """Its path in the shard."""
    size: int
    stored: bytes
    """The file's content; empty when only headers are read."""
    label: str | int | None


@dataclass(frozen=True)
class Tally:
    """What a shard holds, told by its headers."""

    pictures: int
    bytes: int
    """Of its pictures, not of the file."""
    passed_over: dict[str, int] = field(default_factory=dict)
    """How many entries were not taken for pictures, by reason."""


class Member(NamedTuple):
    """A file, link or folder in a tar file."""

    name: str
    kind: bytes
    size: int
    stream: Stream

    def content(self) -> bytes:
        """Return the file's content; only once, and before the next member is asked for."""
        return exactly(self.stream, self.size)


def tally(stream: Stream) -> Tally:
    """Return what a shard holds, without reading its pictures. Raises CardiganError for what is no tar file or not a whole one."""
    passed_over: Counter[str] = Counter()
    sizes = [picture.size for picture in pictures(stream, passed_over, contents=False)]
    return Tally(len(sizes), sum(sizes), dict(passed_over))


def pictures(stream: Stream, passed_over: Counter[str], contents: bool = True) -> Iterator[Picture]:
    """Yield a shard's pictures; adds to `passed_over` how many entries were none, by reason. Raises as `tally` does."""
    for _, files in groupby(_files(stream, passed_over), key=lambda file: key_of(file.name)):
        picture = _picture(files, passed_over, contents)
        if picture:
            yield picture


def key_of(name: str) -> str:
    """Return what files of one picture have in common: the path up to the first dot of the last part."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _picture(files: Iterable[Member], passed_over: Counter[str], contents: bool) -> Picture | None:
    found, stored, labels = None, b"", {}
    for file in files:
        suffix = file.name.rpartition(".")[2].lower()
        if not why_not(file.name) and found is None:
            found, stored = file, file.content() if contents else b""
        elif not why_not(file.name):
            passed_over["another picture of the same key"] += 1
        elif contents and suffix in ("cls", "json"):
            labels[suffix] = _written(file.content()) if suffix == "cls" else _described(file.content())
    if found is None:
        passed_over[NO_PICTURE] += 1
        return None
    written = labels.get("cls")
    return Picture(shown(found.name), found.size, stored, labels.get("json") if written is None else written)


def _written(content: bytes) -> str | int | None:
    return _label(content.decode(errors="replace"))


def _described(content: bytes) -> str | int | None:
    try:
        told_of = json.loads(content)
    except (ValueError, RecursionError):
        return None  # a caption or camera data that someone cut off; it need not have held a label
    if not isinstance(told_of, dict):
        return None
    return next((label for word in ("label", "class") if (label := _label(told_of.get(word))) is not None), None)


def _label(value: object) -> str | int | None:
    """Return a class's number or name; None for what is neither."""
    if isinstance(value, str):
        text = value.strip()
        digits = text.removeprefix("-")
        return int(text) if digits.isascii() and digits.isdecimal() and len(digits) < 19 else text or None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _files(stream: Stream, passed_over: Counter[str]) -> Iterator[Member]:
    """Yield the files that belong to pictures, if any do."""
    for member in members(stream):
        if member.kind in LINKS:
            passed_over["a link"] += 1
        elif member.kind not in {*FILES, tarfile.DIRTYPE}:
            passed_over["a device"] += 1
        elif member.kind == tarfile.DIRTYPE:
            continue
        elif member.name.startswith("/") or ".." in member.name.split("/"):
            passed_over["outside the archive"] += 1
        elif why_not(member.name) == HIDDEN:
            passed_over[HIDDEN] += 1
        else:
            yield member


def members(stream: Stream) -> Iterator[Member]:
    """Yield what is in a tar file (ustar, GNU or pax), in its order, as far as its end mark.

    Stricter than `tarfile`, which takes a damaged header, or the end of a file that was cut off, for the end of the archive.
    """
    notes: dict[str, str] = {}  # what a header of its own said of the next member
    while (header := _header(stream)) is not None:
        size = 0 if header.type in WITHOUT_CONTENT else int(notes.get("size", header.size))
        if header.type == tarfile.GNUTYPE_LONGNAME:
            notes["path"] = _text(_note(stream, size).rstrip(b"\0"))
        elif header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            notes |= _records(_note(stream, size), stream)
        elif header.type in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
            _note(stream, size)
        else:
            if header.type == tarfile.GNUTYPE_SPARSE or any(word.startswith("GNU.sparse.") for word in notes):
                raise _fault(stream, f"holds {shown(header.name)} as a sparse file: pack it without --sparse")
            end = stream.position + _padded(size)
            yield Member(notes.get("path", header.name), header.type, size, stream)
            stream.skip(end - stream.position)
            notes = {}


def _header(stream: Stream) -> tarfile.TarInfo | None:
    """Return the next header; None at the mark that ends the archive."""
    start = stream.position
    block = exactly(stream, BLOCK)
    if not any(block):
        return None
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        header = None
    if header is not None and 0 <= header.size <= LARGEST:
        return header
    if start:
        raise _fault(stream, f"is damaged at byte {start:,}: copy, download or make it again")
    packed = next((kind for signature, kind in COMPRESSED.items() if block.startswith(signature)), "")
    raise _fault(
        stream, f"is {packed}, not tar: unpack it, pictures are small already" if packed else "is not a tar file: make it with tar or WebDataset"
    )


def _note(stream: Stream, size: int) -> bytes:
    """Return the content of a header that tells of another member."""
    if size > NOTE:
        raise _fault(stream, f"is damaged before byte {stream.position:,}: copy, download or make it again")
    return exactly(stream, _padded(size))[:size]


def _records(note: bytes, stream: Stream) -> dict[str, str]:
    """Return a pax header's words and values; each record is "LENGTH WORD=VALUE\\n"."""
    found = {}
    while note.strip(b"\0"):
        length, _, rest = note.partition(b" ")
        size = int(length) if length.isdigit() and len(length) < 8 else 0
        word, equals, value = rest[: size - len(length) - 2].partition(b"=")
        if not equals or size <= len(length) or (word == b"size" and not (value.isdigit() and int(value[:20]) <= LARGEST)):
            raise _fault(stream, f"is damaged before byte {stream.position:,}: copy, download or make it again")
        found[_text(word)] = _text(value)
        note = note[size:]
    return found


def _text(name: bytes) -> str:
    return name.decode(errors="surrogateescape")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def exactly(stream: Stream, size: int) -> bytes:
    """Return the next `size` bytes; raises CardiganError if the stream ends before."""
    content = stream.piece(min(size, PIECE)) if size else b""
    if len(content) == size:
        return content
    parts, missing = [content], size - len(content)
    while missing and (content := stream.piece(min(missing, PIECE))):  # a size may be a lie: no more is asked for at once
        parts.append(content)
        missing -= len(content)
    if missing:
        raise _fault(stream, f"{'is cut off' if stream.position else 'is empty'}: copy, download or make it again")
    return b"".join(parts)


def _fault(stream: Stream, what: str) -> CardiganError:
    return CardiganError(f"The shard {told(stream.address)} {what}.")
