"""From settings to the pictures that are trained on, those that are held out, and what feeds a training that cannot hold them.

The one place where sources, frames and the cache meet; knows neither networks nor devices.
"""

import dataclasses
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cardigan.config import DataConfig
from cardigan.data.decoding import Frame, frame_of
from cardigan.data.feed import Stream
from cardigan.data.formats.huggingface import PREFIX
from cardigan.data.formats.labels import classes_of
from cardigan.data.formats.opening import open_reader
from cardigan.data.loading import decoded_parts, in_turn
from cardigan.data.mnist import mnist
from cardigan.data.prepared import Told, prepared, prepared_bytes, room_for, shuffled
from cardigan.data.reader import Reader
from cardigan.data.sharded.shards import is_shards
from cardigan.data.source import ImageSource, limited
from cardigan.data.stacked import stacked_mnist
from cardigan.data.streams import classes_among, reader_stream, shard_sample, shard_stream, shards_of, survey_of_shards
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
    facts: dict[str, Any] = field(default_factory=dict)
    """What a run remembers of its source, so that a resumed one can tell whether it changed."""
    notes: tuple[str, ...] = ()
    """What a person should know: what was skipped, what was converted."""


def open_pictures(data: DataConfig, told: Told | None = None, reader: Reader | None = None) -> Pictures:
    """Return the pictures of these settings, decoded and kept if need be; `told` hears how far that is, `reader` is one that is open already.

    Raises CardiganError for a source that is not there, cannot be read or holds too little.
    """
    if data.source in EMBEDDED:
        return _embedded(data)
    if reader is None and is_shards(data.source):
        return _sharded(data, frame_of(data))
    reader = reader or reader_of(data)
    if len(reader) - data.held_out < FEWEST:
        raise CardiganError(
            f"{data.source} holds {len(reader):,} picture{'' if len(reader) == 1 else 's'}{_apart(data)}: "
            f"training needs at least {FEWEST}, and hundreds to learn anything but copies."
        )
    frame = frame_of(data)
    if keeps(data, len(reader)):
        return _kept(data, reader, frame, told)
    return _streamed(data, reader, frame)


def placed(source: str) -> str:
    """Return a source by a name that means the same everywhere on this machine: local paths become absolute."""
    if source in EMBEDDED or "://" in source or source.startswith(PREFIX):
        return source
    return os.path.abspath(Path(source).expanduser())  # noqa: PTH100 - of a pattern too


def called(source: str) -> str:
    """Return a short name for a source, that a folder can bear."""
    return re.sub(r"[^\w.-]+", "-", Path(source.rstrip("/")).stem, flags=re.ASCII)[:40].strip("-.")


def reader_of(data: DataConfig) -> Reader:
    """Return the source's pictures by number; raises CardiganError for one that is not there, offering an embedded one that is called alike."""
    if not Path(data.source).exists() and get_close_matches(Path(data.source).name, EMBEDDED, cutoff=0.7):
        raise unknown("source", Path(data.source).name, EMBEDDED)
    return open_reader(data.source, data.labels)


def survey_of(data: DataConfig, reader: Reader | None = None) -> Survey:
    """Return what a source's pictures are like; `reader` is one that is open already."""
    if reader is None and is_shards(data.source):
        return survey_of_shards(shards_of(data), data.max_pixels)
    return survey(reader or reader_of(data), data.max_pixels)


def _apart(data: DataConfig) -> str:
    return f", {data.held_out:,} of them held out" if data.held_out else ""


def keeps(data: DataConfig, count: int) -> bool:
    """Return whether that many pictures are decoded once and kept; raises CardiganError if they must be and there is no room."""
    if data.keep == "stream":
        return False
    if room_for(count, frame_of(data)):
        return True
    if data.keep == "disk":
        size = prepared_bytes(count, frame_of(data)) / 1e9
        raise CardiganError(f"{count:,} pictures of this size take {size:.1f} GB, more than half of what is free: set data.keep to stream, or auto.")
    return False


def _embedded(data: DataConfig) -> Pictures:
    unread = {"held_out": data.held_out, "labels": data.labels}
    odd = next((name for name, value in unread.items() if value), None)
    if odd is not None:
        raise CardiganError(f"data.{odd} is {unread[odd]!r}, but {data.source} has its own test part and its own classes: leave it out.")
    source = limited(EMBEDDED[data.source](data.split), data.limit)
    held_out = EMBEDDED[data.source]("test") if data.split == "train" else None
    return Pictures(dataclasses.replace(source, mirrored=data.mirror), held_out)


def _kept(data: DataConfig, reader: Reader, frame: Frame, told: Told | None) -> Pictures:
    found = prepared(reader, frame, data.workers, told)
    labels, names = _labels(reader, found.entries)
    whole = ImageSource(data.source, found.pixels, labels, len(names), class_names=names, identity=found.key)
    count = len(found.entries)
    cut = count - data.held_out
    if cut < FEWEST:
        raise CardiganError(f"{data.source} holds {count:,} readable pictures{_apart(data)}: training needs at least {FEWEST}.")
    held_out = part(whole, slice(cut, count), "held out") if data.held_out else None
    training = {"all": whole, "train": part(whole, slice(0, cut), "not held out"), "test": held_out or whole}[data.split]
    training = dataclasses.replace(limited(training, data.limit), mirrored=data.mirror)
    apart = held_out if data.split == "train" else None
    return Pictures(training, apart, facts=_facts(data, reader), notes=_notes(len(reader), found.bad, found.notes))


def part(source: ImageSource, rows: slice, told: str) -> ImageSource:
    """Return consecutive pictures of a source without copying them."""
    identity = f"{source.identity} {told} {rows.start}:{rows.stop}"
    return dataclasses.replace(source, pixels=source.pixels[rows], labels=source.labels[rows], identity=identity)


def _labels(reader: Reader, entries: list[int]) -> tuple[Labels, tuple[str, ...]]:
    """Return the classes of these entries as numbers, -1 for none, and the names of all classes."""
    if reader.labels is None:
        return torch.zeros(len(entries), dtype=torch.long), ()
    numbers, names = classes_of(reader.labels)
    return torch.tensor([-1 if (number := numbers[entry]) is None else number for entry in entries], dtype=torch.long), tuple(names)


def _streamed(data: DataConfig, reader: Reader, frame: Frame) -> Pictures:
    entries = shuffled(len(reader))
    cut = len(entries) - data.held_out
    held, usable = (entries[cut:], entries[:cut]) if data.split == "train" else ([], {"all": entries, "test": entries[cut:]}[data.split])
    usable = usable[: data.limit or None]
    sample = _in_memory(data, reader, frame, usable[:LOOKED_AT])
    held_out = _in_memory(data, reader, frame, held) if held else None
    numbers, _ = _labels(reader, list(range(len(reader))))
    streamed = partial(reader_stream, reader, frame, data, usable, numbers)
    return Pictures(sample, held_out, streamed, _facts(data, reader))


def _in_memory(data: DataConfig, reader: Reader, frame: Frame, entries: list[int]) -> ImageSource:
    """Return these pictures decoded; those that cannot be read are left out."""
    parts = list(decoded_parts(reader, frame, ([entries[place] for place in places] for places in in_turn(len(entries))), data.workers))
    indices = [index for each in parts for index in each.indices]
    labels, names = _labels(reader, indices)
    pixels = torch.cat([torch.from_numpy(each.pixels) for each in parts]).permute(0, 3, 1, 2)
    return ImageSource(data.source, pixels, labels, len(names), class_names=names)


def _sharded(data: DataConfig, frame: Frame) -> Pictures:
    odd = next((name for name in ("held_out", "limit") if getattr(data, name)), None)
    if odd is not None:
        raise CardiganError(f"data.{odd} is {getattr(data, odd)}, but shards are read as they come: leave some of them out of the list instead.")
    shards = shards_of(data)
    classes = data.classes or classes_among(shards)
    sample = shard_sample(shards, frame, classes, LOOKED_AT)
    facts = {"source": data.source, "count": len(shards.addresses), "fingerprint": shards.fingerprint, "pictures": list(shards.addresses)}
    return Pictures(sample, None, partial(shard_stream, shards, frame, data, classes), facts)


def _facts(data: DataConfig, reader: Reader) -> dict[str, Any]:
    few = len(reader) <= LISTED
    return {
        **{"source": data.source, "count": len(reader), "fingerprint": reader.fingerprint},
        "pictures": [reader.title(index) for index in range(len(reader))] if few else None,
        "classes": list(_labels(reader, [])[1]),
    }


def _notes(count: int, bad: dict[str, str], converted: dict[str, int]) -> tuple[str, ...]:
    notes = [f"{number:,} pictures: {what}" for what, number in converted.items()]
    if bad:
        title, reason = next(iter(bad.items()))
        notes.append(f"{len(bad):,} of {count:,} pictures were skipped ({title} {reason}{', and others' if len(bad) > 1 else ''})")
    return tuple(notes)
