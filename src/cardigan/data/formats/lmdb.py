"""Images in LMDB databases, as encoded files. The one file that needs lmdb."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from cardigan.data.formats.file_names import NOT_AN_IMAGE
from cardigan.data.formats.per_process import PerProcess
from cardigan.data.reader import Reader, UnreadableImage, fingerprint, printable, stat_signature
from cardigan.errors import CardiganError, error_reason

IMAGE_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"P5", b"P6")
"""First bytes of image files. AVIF has its name in bytes 4 to 12 instead."""
RESOLUTION_KEY = re.compile(rb"(\d{1,5})-(\d+)")
"""Keys of databases that hold every image in several sizes: 256-00000."""


def lmdb_reader(path: Path) -> Reader:
    """Return the images of an LMDB database (a folder with data.mdb, or a file): its encoded images, by key."""
    keys, sizes, skipped = [], [], Counter[str]()
    with _transaction(path) as transaction:
        for key, value in transaction.cursor():
            if _is_image_file(bytes(value[:16])):
                keys.append(bytes(key))
                sizes.append(len(value))
            else:
                skipped[NOT_AN_IMAGE] += 1
    if not keys:
        raise CardiganError(
            f"No value of {str(path)!r} is an image ({skipped[NOT_AN_IMAGE]:,} are not): "
            "expected encoded images, such as JPEG."
        )
    keys, sizes, notes = _largest_resolution(keys, sizes)
    database = path / "data.mdb" if path.is_dir() else path
    lock = PerProcess(Lock)

    def read(index: int) -> bytes:
        try:
            with lock(), _transaction(path) as transaction:
                return bytes(transaction.get(keys[index], b""))
        except CardiganError as error:
            raise UnreadableImage(f"cannot be read ({error})") from None

    source_fingerprint = fingerprint(
        [stat_signature(database), *(part for pair in zip(keys, sizes, strict=True) for part in pair)]
    )
    return Reader(
        str(path),
        len(keys),
        lambda index: printable(keys[index]),
        read,
        source_fingerprint,
        skipped=dict(skipped),
        notes=notes,
    )


def _largest_resolution(keys: list[bytes], sizes: list[int]) -> tuple[list[bytes], list[int], tuple[str, ...]]:
    """Return the keys of the largest resolution if every key is SIZE-INDEX and each index has every size."""
    matches = [RESOLUTION_KEY.fullmatch(key) for key in keys]
    parts = [(int(match[1]), match[2]) for match in matches if match is not None]
    resolutions = {resolution for resolution, _ in parts}
    if len(parts) < len(keys) or len(resolutions) < 2:
        return keys, sizes, ()
    largest = max(resolutions)
    indices = {resolution: {index for size, index in parts if size == resolution} for resolution in resolutions}
    if any(indices[resolution] != indices[largest] for resolution in resolutions):
        return keys, sizes, ()
    kept = [position for position, (resolution, _) in enumerate(parts) if resolution == largest]
    smaller = ", ".join(str(resolution) for resolution in sorted(resolutions - {largest}))
    note = f"images: the database holds every image in several sizes; {largest} is read, {smaller} not"
    return [keys[position] for position in kept], [sizes[position] for position in kept], (note,)


@contextmanager
def _transaction(path: Path) -> Iterator[Any]:
    """Yield a transaction on the database, opened for this read only.

    LMDB lets a process open a database only once, and a forked process must not use its parent's.
    """
    try:
        import lmdb
    except ImportError:
        raise CardiganError("LMDB databases need lmdb: install it with pip install 'cardigan[lmdb]'.") from None
    try:
        with (
            lmdb.open(str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False) as database,
            database.begin(buffers=True) as transaction,
        ):
            yield transaction
    except (lmdb.Error, OSError) as error:
        raise CardiganError(
            f"{str(path)!r} cannot be read ({error_reason(error)}): expected a complete LMDB database."
        ) from None


def _is_image_file(head: bytes) -> bool:
    return head.startswith(IMAGE_MAGIC) or head[4:12] in {b"ftypavif", b"ftypavis", b"ftypmif1"}
