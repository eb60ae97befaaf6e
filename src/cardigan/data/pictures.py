"""From settings to the pictures that are trained on, those that are held out, and what feeds a training that cannot hold them.

The one place where sources, frames and the cache meet; knows neither networks nor devices.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cardigan.config import DataConfig
from cardigan.data.decoding import Frame, frame_of
from cardigan.data.feed import Stream
from cardigan.data.formats.huggingface import PREFIX
from cardigan.data.formats.labels import classes_of, parted
from cardigan.data.formats.opening import open_reader
from cardigan.data.mnist import mnist
from cardigan.data.prepared import Told, decoded_now, is_kept, prepared, prepared_bytes, room_for, shuffled
from cardigan.data.reader import Reader, fingerprint
from cardigan.data.sharded.names import told as without_query
from cardigan.data.sharded.shards import is_shards
from cardigan.data.source import ImageSource, limited
from cardigan.data.stacked import stacked_mnist
from cardigan.data.streams import classes_among, first_entries, reader_stream, shard_sample, shard_stream, shards_of, survey_of_shards
from cardigan.data.survey import Survey, survey
from cardigan.errors import CardiganError, unknown
from cardigan.shapes import Labels

EMBEDDED: dict[str, Callable[..., ImageSource]] = {"mnist": mnist, "stacked-mnist": stacked_mnist}
LOOKED_AT = 2_048
"""Pictures of a stream that are kept in memory, to look at and to compare with."""
FEWEST = 2
LISTED = 20_000
"""Names of pictures that a run remembers, to tell later which of them changed."""


@dataclass(frozen=True)
class Pictures:
    """A source as a training needs it."""

    training: ImageSource
    """What is trained on; for a stream, a part of it that is kept in memory."""
    held_out: ImageSource | None
    """What is not, if anything is kept apart."""
    streamed: Callable[[int, int, slice], Stream] | None = None
    """Given seed, batch and this process's share, what yields the pictures of a training that cannot hold them all."""
    unlabelled: int = 0
    """How many pictures, of those that are known beforehand, have no class though the source has classes."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What a run remembers of its source, so that a resumed one can tell whether it changed."""
    notes: tuple[str, ...] = ()
    """What a person should know: what was skipped, what was converted."""


def open_pictures(data: DataConfig, told: Told | None = None, reader: Reader | None = None) -> Pictures:
    """Return the pictures of these settings, decoded and kept if need be; `told` hears how far that is, `reader` is one that is open already.

    Raises CardiganError for a source that is not there, cannot be read or holds too little.
    """
    if reader is None and data.source in EMBEDDED:
        return _embedded(data)
    _refuse_unread(data, {"classes"} if reader or not is_shards(data.source) else {"labels", "split"})
    if data.channels not in (1, 3, 4):
        raise CardiganError(f"data.channels is {data.channels}: expected 1 (grey), 3 (RGB) or 4 (RGB and transparency).")
    if reader is None and is_shards(data.source):
        return _sharded(data, frame_of(data))
    reader = reader or reader_of(data)
    reader = replace(reader, labels=None if reader.labels is None else list(reader.labels))
    if len(reader) - data.held_out < FEWEST:
        raise CardiganError(
            f"{data.source} holds {len(reader):,} picture{'' if len(reader) == 1 else 's'}{_apart(data)}: "
            f"training needs at least {FEWEST}, and hundreds to learn anything but copies."
        )
    if data.split == "test" and not data.held_out:
        raise CardiganError("data.split is 'test', but nothing is held out: give data.held_out a number of pictures.")
    if data.limit > len(reader) - data.held_out:
        raise CardiganError(
            f"data.limit is {data.limit:,} and {data.source} has {len(reader) - data.held_out:,} pictures to train on: give a smaller one."
        )
    frame = frame_of(data)
    if keeps(data, reader, frame):
        return _kept(data, reader, frame, told)
    return _streamed(data, reader, frame)


def _refuse_unread(data: DataConfig, names: set[str]) -> None:
    """Raise CardiganError for settings that were given and that this kind of source does not read."""
    usual = DataConfig()
    for name in sorted(names):
        if getattr(data, name) != getattr(usual, name):
            raise CardiganError(f"data.{name} is {getattr(data, name)!r}, which {data.source} does not read: leave it out.")


def placed(source: str) -> str:
    """Return a source by a name that means the same everywhere on this machine: local paths become absolute."""
    if source in EMBEDDED or "://" in source or source.startswith(PREFIX):
        return source
    return os.path.abspath(Path(source).expanduser())  # noqa: PTH100 - of a pattern too


def placed_labels(labels: str) -> str:
    """Return where classes come from by a name that means the same everywhere on this machine."""
    file, column = parted(labels)
    if file is None or not file.exists():
        return labels
    return str(file.absolute()) + (f":{column}" if column else "")


def called(source: str) -> str:
    """Return a short name for a source, that a folder can bear."""
    return re.sub(r"[^\w.-]+", "-", Path(without_query(source).rstrip("/")).stem, flags=re.ASCII)[:40].strip("-.")


def reader_of(data: DataConfig) -> Reader:
    """Return the source's pictures by number; raises CardiganError for one that is not there, offering an embedded one that is called alike."""
    local = data.source == placed(data.source) and not data.source.startswith(PREFIX)
    if local and not Path(data.source).exists() and get_close_matches(Path(data.source).name, EMBEDDED, cutoff=0.7):
        raise unknown("source", Path(data.source).name, EMBEDDED)
    return open_reader(data.source, data.labels)


def survey_of(data: DataConfig, reader: Reader | None = None) -> Survey:
    """Return what a source's pictures are like; `reader` is one that is open already."""
    if reader is None and is_shards(data.source):
        return survey_of_shards(shards_of(data), data.max_pixels)
    return survey(reader or reader_of(data), data.max_pixels)


def _apart(data: DataConfig) -> str:
    return f", {data.held_out:,} of them held out" if data.held_out else ""


def keeps(data: DataConfig, reader: Reader, frame: Frame) -> bool:
    """Return whether the pictures are decoded once and kept; raises CardiganError if they must be and there is no room."""
    if data.keep == "stream":
        return False
    if reader.passing or is_kept(reader, frame) or room_for(len(reader), frame):
        return True
    if data.keep == "disk":
        size = prepared_bytes(len(reader), frame) / 1e9
        raise CardiganError(
            f"{len(reader):,} pictures of this size take {size:.1f} GB, more than half of what is free: set data.keep to stream, or auto."
        )
    return False


def _embedded(data: DataConfig) -> Pictures:
    _refuse_unread(data, {"held_out", "labels", "classes", "max_pixels", "keep", "workers"})
    source = limited(EMBEDDED[data.source](data.split), data.limit)
    held_out = EMBEDDED[data.source]("test") if data.split == "train" else None
    return Pictures(replace(source, mirrored=data.mirror), held_out)


def _kept(data: DataConfig, reader: Reader, frame: Frame, told: Told | None) -> Pictures:
    found = decoded_now(reader, frame, data.workers, told) if reader.passing else prepared(reader, frame, data.workers, told)
    training, held = _divided(data, len(reader))
    numbers, names = _labels(reader)
    identity = f"{found.key} {_labels_hash(reader)}" if found.key else ""
    whole = ImageSource(data.source, found.pixels, numbers[found.entries], len(names), class_names=names, identity=identity)
    rows = {entry: row for row, entry in enumerate(found.entries)}
    sources = [_part(whole, [rows[entry] for entry in entries if entry in rows]) for entries in (training, held)]
    if len(sources[0]) < FEWEST:
        raise CardiganError(f"{data.source} holds {len(sources[0]):,} readable pictures to train on{_apart(data)}: training needs at least {FEWEST}.")
    held_out = sources[1] if len(sources[1]) and data.split == "train" else None
    notes = _notes(len(reader), found.bad, found.notes)
    return Pictures(replace(sources[0], mirrored=data.mirror), held_out, None, _unlabelled(numbers, names), _facts(data, reader, "kept"), notes)


def _divided(data: DataConfig, count: int) -> tuple[list[int], list[int]]:
    """Return the numbers of the entries that are trained on, and of those that are held out; consecutive ones of the order they are kept in."""
    entries = shuffled(count)
    cut = count - data.held_out
    training = {"train": entries[:cut], "test": entries[cut:], "all": entries}[data.split]
    return training[: data.limit or None], entries[cut:]


def _part(source: ImageSource, rows: list[int]) -> ImageSource:
    """Return consecutive pictures of a source, without copying them."""
    start, stop = (rows[0], rows[-1] + 1) if rows else (0, 0)
    identity = f"{source.identity} {start}:{stop}" if source.identity else ""
    return replace(source, pixels=source.pixels[start:stop], labels=source.labels[start:stop], identity=identity)


def _labels(reader: Reader) -> tuple[Labels, tuple[str, ...]]:
    """Return all entries' classes as numbers, -1 for none, and the names of all classes."""
    if reader.labels is None:
        return torch.zeros(len(reader), dtype=torch.long), ()
    numbers, names = classes_of(reader.labels)
    return torch.tensor([-1 if number is None else number for number in numbers], dtype=torch.long), tuple(names)


def _unlabelled(numbers: Labels, names: tuple[str, ...]) -> int:
    return int((numbers < 0).sum()) if names else 0


def _labels_hash(reader: Reader) -> str:
    return fingerprint(str(label) for label in reader.labels or ())


def _streamed(data: DataConfig, reader: Reader, frame: Frame) -> Pictures:
    training, held = _divided(data, len(reader))
    numbers, names = _labels(reader)

    def in_memory(entries: list[int]) -> ImageSource:
        found = decoded_now(reader, frame, data.workers, entries=entries)
        return ImageSource(data.source, found.pixels, numbers[found.entries], len(names), class_names=names)

    held_out = in_memory(held) if held and data.split == "train" else None
    streamed = partial(reader_stream, reader, frame, data, training, numbers)
    return Pictures(in_memory(training[:LOOKED_AT]), held_out, streamed, _unlabelled(numbers, names), _facts(data, reader, "streamed"))


def _sharded(data: DataConfig, frame: Frame) -> Pictures:
    if data.limit:
        raise CardiganError(f"data.limit is {data.limit}, but shards are read as they come: leave some of them out of the list instead.")
    if data.keep == "disk":
        raise CardiganError("data.keep is 'disk', but shards are read as they come: leave it out.")
    listed = shards_of(data)
    shards, apart = listed.apart(data.held_out)
    first = first_entries(shards, LOOKED_AT)
    classes = data.classes or classes_among(first)
    sample = shard_sample(shards, first, frame, classes)
    held_out = shard_sample(shards, apart, frame, classes) if apart else None
    streamed = partial(shard_stream, shards, frame, data, classes)
    facts = {"source": data.source, "count": len(listed.addresses), "fingerprint": listed.fingerprint, "pictures": list(listed.addresses)}
    return Pictures(sample, held_out, streamed, int((sample.labels < 0).sum()), {**facts, "labels": "", "how": "streamed"})


def _facts(data: DataConfig, reader: Reader, how: str) -> dict[str, Any]:
    return {
        **{"source": data.source, "count": len(reader), "fingerprint": reader.fingerprint, "labels": _labels_hash(reader), "how": how},
        "pictures": [reader.title(index) for index in range(len(reader))] if len(reader) <= LISTED else None,
    }


def _notes(count: int, bad: dict[str, str], converted: dict[str, int]) -> tuple[str, ...]:
    notes = [f"{number:,} pictures: {what}" for what, number in converted.items()]
    if bad:
        title, reason = next(iter(bad.items()))
        notes.append(f"{len(bad):,} of {count:,} pictures were skipped ({title} {reason}{', and others' if len(bad) > 1 else ''})")
    return tuple(notes)
