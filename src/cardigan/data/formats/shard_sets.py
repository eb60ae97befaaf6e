"""The images of all tar shards of a set, in access by index, for `cardigan check`.

Training streams shards instead (`webdataset/shards.py`).
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

from cardigan.data.formats.archives import tar_reader
from cardigan.data.reader import Reader, StoredImage, fingerprint, printable
from cardigan.data.webdataset.addresses import is_gzip, is_remote, redact_query, shard_addresses, training_shards
from cardigan.errors import CardiganError, error_reason
from cardigan.files.special_files import reject_special_file


def shard_set_reader(source: str) -> Reader:
    """Return the images of all training shards on this machine. Raises CardiganError for remote or damaged shards."""
    found = shard_addresses(source)
    addresses = training_shards(source, found)
    if any(is_remote(address) for address in addresses):
        raise CardiganError(
            f"{redact_query(source)} is on a server, and a check reads shards in any order: download some of them, and "
            "give their folder."
        )
    paths = [Path(address) for address in addresses]
    shards = [_open_shard(path) for path in paths]
    ends = list(accumulate(len(shard) for shard in shards))

    def locate(index: int) -> tuple[int, int]:
        """Return the shard of an image, and the image's index in it."""
        number = bisect_right(ends, index)
        return number, index - (ends[number] - len(shards[number]))

    def entry_name(index: int) -> str:
        number, position = locate(index)
        return f"{printable(paths[number].name)}/{shards[number].entry_name(position)}"

    def read(index: int) -> StoredImage:
        number, position = locate(index)
        return shards[number].read(position)

    unread = len(found) - len(addresses)
    notes = (f"images: {unread:,} shards of a test set are not read",) if unread else ()
    return Reader(
        source,
        ends[-1],
        entry_name,
        read,
        fingerprint(shard.fingerprint for shard in shards),
        labels=_labels(shards),
        skipped=dict(sum((Counter(shard.skipped) for shard in shards), Counter())),
        notes=notes,
    )


def _open_shard(path: Path) -> Reader:
    """Return the reader of a shard. A compressed shard is read again when needed, so that memory holds one of them."""
    try:
        reject_special_file(path)
    except OSError as error:
        raise CardiganError(
            f"The shard {path} cannot be read ({error_reason(error)}): add it, or name only existing shards."
        ) from error
    reader = tar_reader(path)
    if not is_gzip(str(path)):
        return reader
    return replace(
        reader,
        entry_name=[reader.entry_name(index) for index in range(len(reader))].__getitem__,
        read=lambda index: _latest_archive(path).read(index),
    )


@lru_cache(maxsize=1)
def _latest_archive(path: Path) -> Reader:
    return tar_reader(path)


def _labels(shards: Sequence[Reader]) -> list[str | int | None] | None:
    if all(shard.labels is None for shard in shards):
        return None
    return [label for shard in shards for label in (shard.labels or [None] * len(shard))]
