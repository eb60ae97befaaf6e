"""Shard addresses: expands braces, wildcards or a folder to a list, always in the same order.

Does not know the content; `byte_stream.py` opens the shards.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from cardigan.data.formats.file_names import HIDDEN, skip_reason
from cardigan.data.formats.splits import without_test_shards
from cardigan.errors import CardiganError, error_reason

BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
WILDCARDS = "*?["
SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")
MAX_SHARDS = 1_000_000
"""Maximum number of shards of a source. A typo in a range could fill the memory."""
MAX_NAMED = 3


def is_shards(source: str) -> bool:
    """Return whether a source is shards: tar files by braces or wildcards, a remote tar file, or a folder with several.

    A folder with at least as many images as tar files is an image folder.
    """
    if not is_remote(source) and _exists(source):
        return len(_tar_files(Path(source))) > 1
    return _url_path(source).rstrip("}").endswith(SHARD_SUFFIXES) and (
        is_remote(source) or any(character in source for character in "{" + WILDCARDS)
    )


def is_remote(address: str) -> bool:
    return "://" in address


def is_gzip(address: str) -> bool:
    return _url_path(address).lower().endswith(SHARD_SUFFIXES[1:])


def is_http(address: str) -> bool:
    return address.lower().startswith(("http://", "https://"))


def shard_addresses(source: str) -> tuple[str, ...]:
    """Return the shards of a source: braces in their order, wildcards and folders sorted by name.

    Raises CardiganError if there are no shards, a shard is named twice, or the braces are invalid.
    """
    if not is_remote(source) and _exists(source):
        found = [source] if Path(source).is_file() else _tar_files(Path(source))
    else:
        found = [address for pattern in expand_braces(source) for address in _glob(pattern)]
    if not found:
        raise CardiganError(
            f"{source!r} names no shards: expected tar files, as in 'data/train-{{000..122}}.tar', 'data/*.tar' or a "
            "folder of them."
        )
    if len(set(found)) < len(found):
        duplicate = Counter(found).most_common(1)[0][0]
        raise CardiganError(
            f"{source!r} names {redact_query(duplicate)} twice, so its images would occur twice as often: name it once."
        )
    return tuple(found)


def training_shards(source: str, addresses: Sequence[str]) -> tuple[str, ...]:
    """Return the shards without those of a test set. Of shards that braces name one by one, all."""
    if "{" in source and not _exists(source):
        return tuple(addresses)
    return tuple(addresses[index] for index in without_test_shards([shard_name(address) for address in addresses]))


def expand_braces(pattern: str) -> list[str]:
    """Return all expansions of the braces, the last brace fastest: `{a,b}-{08..10}` is a-08, a-09, a-10, b-08, ..."""
    parts = BRACES.split(pattern)  # alternates plain text and the content of braces
    if any(character in text for text in parts[::2] for character in "{}"):
        raise CardiganError(
            f"The braces of {pattern!r} are unmatched or nested: expected braces such as {{000..122}} or {{a,b}}."
        )
    choices = [_brace_choices(part, pattern) if position % 2 else [part] for position, part in enumerate(parts)]
    if math.prod(len(choice) for choice in choices) > MAX_SHARDS:
        raise _too_many_error(pattern)
    return ["".join(words) for words in itertools.product(*choices)]


def _brace_choices(content: str, pattern: str) -> list[str]:
    bounds = RANGE.fullmatch(content)
    if not bounds:
        if "," not in content:
            raise CardiganError(
                f"{{{content}}} in {pattern!r} is neither a range such as {{000..122}} nor a list such as {{a,b}}."
            )
        return content.split(",")
    first, last = int(bounds[1]), int(bounds[2])
    if abs(last - first) >= MAX_SHARDS:
        raise _too_many_error(pattern)
    padded = any(len(bound) > 1 and bound.startswith("0") for bound in bounds.groups())
    width = max(len(bound) for bound in bounds.groups()) if padded else 0
    step = 1 if last >= first else -1
    return [f"{number:0{width}}" for number in range(first, last + step, step)]


def _too_many_error(pattern: str) -> CardiganError:
    return CardiganError(
        f"{pattern!r} names more than {MAX_SHARDS:,} shards: check the ranges, or use fewer, larger shards."
    )


def _glob(pattern: str) -> list[str]:
    if is_http(pattern):
        if "*" in _url_path(pattern):
            raise CardiganError(
                f"{redact_query(pattern)} has a wildcard, and a web server cannot list files: give a range such as "
                "{000..122}."
            )
        return [pattern]
    if not any(character in pattern for character in WILDCARDS) or (not is_remote(pattern) and _exists(pattern)):
        return [pattern]
    if is_remote(pattern):
        return _glob_remote(pattern)
    path = Path(pattern)
    found = Path(path.anchor or ".").glob(str(path.relative_to(path.anchor)))
    return sorted(str(match) for match in found if not match.name.startswith("."))


def _glob_remote(pattern: str) -> list[str]:
    try:
        system, path = file_system(pattern)
        return sorted(system.unstrip_protocol(match) for match in system.glob(path))
    except OSError as error:
        raise CardiganError(
            f"Cannot list {redact_query(pattern)} ({error_reason(error)}): check the address, or give a range such as "
            "{000..122}."
        ) from error


def file_system(address: str) -> tuple[Any, str]:
    """Return the fsspec file system and path of an address such as s3://...; raises CardiganError if there is none."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise CardiganError(
            f"{redact_query(address)} needs the package fsspec: pip install 'cardigan[remote]'."
        ) from None
    try:
        return url_to_fs(address)
    except (ImportError, ValueError) as error:  # "Install s3fs to access S3", "Protocol not known"
        raise CardiganError(f"Cannot open {redact_query(address)}: {error_reason(error)}.") from error


def _tar_files(folder: Path) -> list[str]:
    """Return a folder's tar files, sorted; none if it holds at least as many images."""
    if not folder.is_dir():
        return []
    visible = [path for path in folder.iterdir() if skip_reason(path.name) != HIDDEN]
    tars = sorted(str(path) for path in visible if path.name.lower().endswith(SHARD_SUFFIXES) and path.is_file())
    return tars if len(tars) > sum(not skip_reason(path.name) for path in visible) else []


def _exists(source: str) -> bool:
    try:
        return Path(source).exists()
    except OSError:  # a long list in braces exceeds the maximum length of a name
        return False


def _url_path(address: str) -> str:
    """Return the path of a web address without its query; other addresses unchanged."""
    return urlsplit(address).path if is_http(address) else address


def redact_query(address: str) -> str:
    """Return an address without its query, which can hold a password, for messages."""
    return address.partition("?")[0] if is_http(address) else address


def shard_name(address: str) -> str:
    """Return the last part of an address: train-004.tar."""
    path = _url_path(address)
    return PurePosixPath(path).name if is_remote(address) else Path(path).name


def shard_changes(before: Sequence[str], after: Sequence[str]) -> str:
    """Return a description of changes between two lists of shards: "train-004.tar is gone; 2 new: ..."; "" for none."""
    old_addresses, new_addresses = set(before), set(after)
    removed, added = (
        [old_address for old_address in before if old_address not in new_addresses],
        [new_address for new_address in after if new_address not in old_addresses],
    )
    if not removed and not added:
        return "" if list(before) == list(after) else "the same shards are in another order"
    same_file_names = {shard_name(old) for old in removed} & {shard_name(one) for one in added}
    parts = []
    if removed:
        listed = list_addresses(removed, bool(same_file_names))
        parts.append(f"{listed} is gone" if len(removed) == 1 else f"{len(removed):,} are gone: {listed}")
    if added:
        parts.append(f"{len(added):,} new: {list_addresses(added, bool(same_file_names))}")
    return "; ".join(parts)


def list_addresses(addresses: Sequence[str], full: bool = False) -> str:
    """Return the first few addresses as text, by shard name unless `full`."""
    listed = ", ".join(redact_query(address) if full else shard_name(address) for address in addresses[:MAX_NAMED])
    return listed if len(addresses) <= MAX_NAMED else f"{listed} and {len(addresses) - MAX_NAMED:,} more"
