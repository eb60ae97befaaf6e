"""From `DataConfig` to the training images, the holdout images, and a stream for sources that are not cached.

The one place that combines sources, decoding and the cache. Does not know networks or devices.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cardigan.config_parts import DataConfig
from cardigan.data.builtin import BUILTIN_DATASETS
from cardigan.data.cache import (
    cache_order,
    decode_in_memory,
    decoded_bytes,
    fits_on_disk,
    is_cached,
    load_or_build_cache,
)
from cardigan.data.clusters import with_clusters
from cardigan.data.decoding import DecodeSpec, decode_spec
from cardigan.data.formats.detection import is_address, open_reader
from cardigan.data.formats.labels import encode_labels
from cardigan.data.prefetch import BatchStream
from cardigan.data.reader import MIN_IMAGES, ProgressFn, Reader, evenly_spaced_indices, fingerprint
from cardigan.data.source import ImageSource, random_subset
from cardigan.data.source_names import absolute_source
from cardigan.data.stats import DatasetStats, reader_stats
from cardigan.data.streaming import (
    infer_num_classes,
    preview_source,
    read_first_entries,
    reader_stream,
    shard_label,
    shard_stats,
    shard_stream,
    shards_from_config,
)
from cardigan.data.webdataset.shards import ShardEntry, is_shards
from cardigan.errors import CardiganError, unknown
from cardigan.pixels import encode
from cardigan.shapes import Labels, Pixels

NUM_PREVIEW_IMAGES = 2_048
"""Images of a stream that are kept in memory for previews and metrics."""
NUM_COMPARED_IMAGES = 256
"""Images whose pixels the processes of a run compare at the start."""
MAX_LISTED_NAMES = 20_000
"""Maximum number of image names that a run stores. They show later which images changed."""


@dataclass(frozen=True)
class Datasets:
    """A source, prepared for training."""

    train: ImageSource
    """The training images. For a stream: the part that is kept in memory."""
    holdout: ImageSource | None
    """The holdout images, if there are any."""
    make_stream: Callable[[int, int, slice], BatchStream] | None = None
    """For streamed sources: takes the seed, the batch size and this process's slice of a batch; returns the stream."""
    num_unlabeled: int = 0
    """Number of images without a class in a source with classes, among those known before training."""
    source_fingerprint: dict[str, Any] = field(default_factory=dict)
    """What a run stores about its source. A resumed run compares it to detect changes."""
    messages: tuple[str, ...] = ()
    """Notes for the user: skipped and converted images."""


def source_facts(datasets: Datasets) -> dict[str, str]:
    """Return what identifies the images by their contents, wherever they lie: names, classes and some of the pixels."""
    train, names = datasets.train, datasets.source_fingerprint.get("names")
    sample = torch.linspace(0, len(train) - 1, min(len(train), NUM_COMPARED_IMAGES)).long()
    contents = {
        "names": [str(name) for name in names or ()],
        "classes": [train.labels.cpu().numpy().tobytes()],
        "pixels": [train.pixels[sample].cpu().numpy().tobytes()],
    }
    facts = {f"the fingerprint of the images' {what}": fingerprint(parts) for what, parts in contents.items()}
    return {"the number of images": f"{len(train):,}", **facts}


def open_datasets(data: DataConfig, on_progress: ProgressFn | None = None, reader: Reader | None = None) -> Datasets:
    """Return the datasets for these settings. Decode and cache the images if needed.

    `on_progress` reports the decoding. `reader` is a source that is already open.
    Raises CardiganError if the source is missing, unreadable or too small.
    """
    datasets = _open_datasets(data, on_progress, reader)
    if not data.clusters:
        return datasets
    if datasets.make_stream is not None:
        raise CardiganError(
            f"data.clusters is {data.clusters}, and {data.source} is streamed: clusters need all images before "
            "training. Take a source that is cached, or leave data.clusters out."
        )
    train, holdout = with_clusters(datasets.train, datasets.holdout, data.clusters)
    return replace(datasets, train=train, holdout=holdout, num_unlabeled=0)


def _open_datasets(data: DataConfig, on_progress: ProgressFn | None, reader: Reader | None) -> Datasets:
    """Return the datasets with the classes of the source."""
    if reader is None and data.source in BUILTIN_DATASETS:
        return _builtin_datasets(data)
    _reject_unused_settings(
        data, {"num_classes", "retry_seconds"} if reader or not is_shards(data.source) else {"labels"}
    )
    if data.channels not in (1, 3, 4):
        raise CardiganError(
            f"data.channels is {data.channels}: expected 1 (gray), 3 (RGB) or 4 (RGB and transparency)."
        )
    if reader is None and is_shards(data.source):
        return _sharded_datasets(data, decode_spec(data))
    reader = reader or reader_from_config(data)
    reader = replace(reader, labels=None if reader.labels is None else list(reader.labels))
    if len(reader) - data.holdout < MIN_IMAGES:
        raise CardiganError(
            f"{data.source} holds {len(reader):,} image{'' if len(reader) == 1 else 's'}{_holdout_note(data)}: "
            f"training needs at least {MIN_IMAGES}, and hundreds to learn anything but copies."
        )
    if data.split == "test" and not data.holdout:
        raise CardiganError("data.split is 'test', but nothing is held out: give data.holdout a number of images.")
    if data.max_images > len(reader) - data.holdout:
        raise CardiganError(
            f"data.max_images is {data.max_images:,} and {data.source} has {len(reader) - data.holdout:,} images to "
            "train on: give a smaller number."
        )
    spec = decode_spec(data)
    if should_cache(data, reader, spec):
        return _cached_datasets(data, reader, spec, on_progress)
    return _streamed_datasets(data, reader, spec)


def _reject_unused_settings(data: DataConfig, names: set[str]) -> None:
    """Raise CardiganError for settings that have no effect on this kind of source."""
    defaults = DataConfig()
    for name in sorted(names):
        if getattr(data, name) != getattr(defaults, name):
            raise CardiganError(
                f"data.{name} is {getattr(data, name)!r}, which {data.source} does not read: leave it out."
            )


def reader_from_config(data: DataConfig) -> Reader:
    """Return the reader of the source. For a missing source, the error suggests a built-in of a similar name."""
    is_local = data.source == absolute_source(data.source) and not is_address(data.source)
    if (
        is_local
        and not Path(data.source).exists()
        and get_close_matches(Path(data.source).name, BUILTIN_DATASETS, cutoff=0.7)
    ):
        raise unknown("source", Path(data.source).name, BUILTIN_DATASETS)
    return open_reader(data.source, data.labels, all_parts=data.split == "all")


def dataset_stats(data: DataConfig, reader: Reader | None = None) -> DatasetStats:
    """Return the statistics of a source's images. `reader` is a source that is already open."""
    if reader is None and is_shards(data.source):
        return shard_stats(shards_from_config(data), data.max_pixels)
    return reader_stats(reader or reader_from_config(data), data.max_pixels)


def example_pixels(data: DataConfig, count: int, side: int, reader: Reader | None = None) -> Pixels:
    """Return at most `count` images of a source, RGB or RGBA, evenly spaced over it, cropped to `side` x `side`.

    `reader` is a source that is already open. Unreadable images are left out. Raises CardiganError if none is left.
    """
    small = replace(data, height=side, width=side, channels=4, resize="crop")
    if reader is None and data.source in BUILTIN_DATASETS:
        source = BUILTIN_DATASETS[data.source](data.split)
        chosen = torch.tensor(evenly_spaced_indices(min(count, len(source)), len(source)))
        return encode(source.images_at(chosen, replace(small, channels=3)))
    if reader is None and is_shards(data.source):
        shards = shards_from_config(data)
        return preview_source(shards, read_first_entries(shards, count), decode_spec(small), 0).pixels
    reader = reader or reader_from_config(data)
    entries = evenly_spaced_indices(min(count, len(reader)), len(reader))
    pixels = decode_in_memory(reader, decode_spec(small), data.num_workers, entries=entries).pixels
    if not len(pixels):
        raise CardiganError(f"None of {len(entries)} images of {data.source} can be read: `cardigan check` says why.")
    return pixels


def _holdout_note(data: DataConfig) -> str:
    return f", {data.holdout:,} of them held out" if data.holdout else ""


def should_cache(data: DataConfig, reader: Reader, spec: DecodeSpec) -> bool:
    """Return whether to decode the images once and cache them.

    Raises CardiganError if `data.cache` is "disk" and the disk has too little free space.
    """
    if data.cache == "none":
        return False
    if reader.no_cache or is_cached(reader, spec) or fits_on_disk(len(reader), spec):
        return True
    if data.cache == "disk":
        size = decoded_bytes(len(reader), spec) / 1e9
        raise CardiganError(
            f"{len(reader):,} images of this size take {size:.1f} GB, more than half of the free disk space: "
            "set data.cache to none or auto."
        )
    return False


def _builtin_datasets(data: DataConfig) -> Datasets:
    _reject_unused_settings(
        data, {"holdout", "labels", "num_classes", "max_pixels", "cache", "num_workers", "retry_seconds"}
    )
    source = random_subset(BUILTIN_DATASETS[data.source](data.split), data.max_images)
    holdout = BUILTIN_DATASETS[data.source]("test") if data.split == "train" else None
    return Datasets(replace(source, horizontal_flip=data.horizontal_flip), holdout)


def _cached_datasets(data: DataConfig, reader: Reader, spec: DecodeSpec, on_progress: ProgressFn | None) -> Datasets:
    decoded = (
        decode_in_memory(reader, spec, data.num_workers, on_progress)
        if reader.no_cache
        else load_or_build_cache(reader, spec, data.num_workers, on_progress)
    )
    train_entries, holdout_entries = _split_entries(data, len(reader))
    labels, class_names = _class_labels(reader)
    cache_fingerprint = f"{decoded.key} {_labels_fingerprint(reader)}" if decoded.key else ""
    all_images = ImageSource(
        data.source,
        decoded.pixels,
        labels[decoded.entries],
        len(class_names),
        class_names=class_names,
        fingerprint=cache_fingerprint,
    )
    rows = {entry: row for row, entry in enumerate(decoded.entries)}
    sources = [
        _source_slice(all_images, [rows[entry] for entry in entries if entry in rows])
        for entries in (train_entries, holdout_entries)
    ]
    if len(sources[0]) < MIN_IMAGES:
        raise CardiganError(
            f"{data.source} holds {len(sources[0]):,} readable images to train on{_holdout_note(data)}: "
            f"training needs at least {MIN_IMAGES}."
        )
    holdout = sources[1] if len(sources[1]) and data.split == "train" else None
    messages = (*reader.notes, *_messages(len(reader), decoded.unreadable, decoded.conversions))
    return Datasets(
        replace(sources[0], horizontal_flip=data.horizontal_flip),
        holdout,
        None,
        _count_unlabeled(labels, class_names),
        _source_fingerprint(data, reader, "cached"),
        messages,
    )


def _split_entries(data: DataConfig, count: int) -> tuple[list[int], list[int]]:
    """Return the indices of the training entries and of the holdout entries: consecutive ranges of `cache_order`."""
    entries = cache_order(count)
    num_train = count - data.holdout
    train_entries = {"train": entries[:num_train], "test": entries[num_train:], "all": entries}[data.split]
    return train_entries[: data.max_images or None], entries[num_train:]


def _source_slice(source: ImageSource, rows: list[int]) -> ImageSource:
    """Return consecutive images of a source without a copy."""
    start, stop = (rows[0], rows[-1] + 1) if rows else (0, 0)
    part_fingerprint = f"{source.fingerprint} {start}:{stop}" if source.fingerprint else ""
    return replace(
        source, pixels=source.pixels[start:stop], labels=source.labels[start:stop], fingerprint=part_fingerprint
    )


def _class_labels(reader: Reader) -> tuple[Labels, tuple[str, ...]]:
    """Return the class index of every entry, -1 for none, and the class names."""
    if reader.labels is None:
        return torch.zeros(len(reader), dtype=torch.long), ()
    labels, class_names = encode_labels(reader.labels)
    return torch.tensor([-1 if label is None else label for label in labels], dtype=torch.long), tuple(class_names)


def _count_unlabeled(labels: Labels, class_names: tuple[str, ...]) -> int:
    return int((labels < 0).sum()) if class_names else 0


def _labels_fingerprint(reader: Reader) -> str:
    return fingerprint(str(label) for label in reader.labels or ())


def _streamed_datasets(data: DataConfig, reader: Reader, spec: DecodeSpec) -> Datasets:
    train_entries, holdout_entries = _split_entries(data, len(reader))
    labels, class_names = _class_labels(reader)

    def in_memory(entries: list[int]) -> ImageSource:
        decoded = decode_in_memory(reader, spec, data.num_workers, entries=entries)
        return ImageSource(
            data.source, decoded.pixels, labels[decoded.entries], len(class_names), class_names=class_names
        )

    holdout = in_memory(holdout_entries) if holdout_entries and data.split == "train" else None
    make_stream = partial(reader_stream, reader, spec, data, train_entries, labels)
    return Datasets(
        in_memory(train_entries[:NUM_PREVIEW_IMAGES]),
        holdout,
        make_stream,
        _count_unlabeled(labels, class_names),
        _source_fingerprint(data, reader, "streamed"),
        reader.notes,
    )


def _sharded_datasets(data: DataConfig, spec: DecodeSpec) -> Datasets:
    if data.max_images:
        raise CardiganError(
            f"data.max_images is {data.max_images}, but shards are streamed: name fewer shards instead."
        )
    if data.split == "test":
        raise CardiganError("data.split is 'test', but of shards only the others are trained on: name the test shards.")
    if data.cache == "disk":
        raise CardiganError("data.cache is 'disk', but shards are streamed: leave it out.")
    all_shards = shards_from_config(data)
    shards, holdout_entries = all_shards.split_holdout(data.holdout)
    first_entries_of_epoch = read_first_entries(shards, NUM_PREVIEW_IMAGES)
    num_classes = data.num_classes or infer_num_classes(first_entries_of_epoch)
    preview = preview_source(shards, first_entries_of_epoch, spec, num_classes)
    holdout = preview_source(shards, holdout_entries, spec, num_classes) if holdout_entries else None
    make_stream = partial(shard_stream, shards, spec, data, num_classes)
    source_fingerprint = {
        "source": data.source,
        "num_images": len(all_shards.addresses),
        "fingerprint": all_shards.fingerprint,
        "names": list(all_shards.addresses),
    }
    return Datasets(
        preview,
        holdout,
        make_stream,
        int((preview.labels < 0).sum()),
        {**source_fingerprint, "labels_fingerprint": "", "storage": "streamed"},
        (*all_shards.notes, *_shard_messages(first_entries_of_epoch, num_classes)),
    )


def _shard_messages(first_entries: list[ShardEntry], num_classes: int) -> tuple[str, ...]:
    """Return a note if the first images of shards have classes that are not used."""
    unused = [entry.label for entry in first_entries if entry.label is not None and shard_label(entry, num_classes) < 0]
    if not num_classes:
        unused = [entry.label for entry in first_entries if entry.label is not None]
    if not unused:
        return ()
    return (
        f"classes: {len(unused):,} of the first {len(first_entries):,} images have an unused class such as "
        f"{unused[0]!r}; shards need integers from 0",
    )


def _source_fingerprint(data: DataConfig, reader: Reader, storage: str) -> dict[str, Any]:
    return {
        **{
            "source": data.source,
            "num_images": len(reader),
            "fingerprint": reader.fingerprint,
            "labels_fingerprint": _labels_fingerprint(reader),
            "storage": storage,
        },
        "names": [reader.entry_name(index) for index in range(len(reader))]
        if len(reader) <= MAX_LISTED_NAMES
        else None,
    }


def _messages(count: int, unreadable: dict[str, str], conversions: dict[str, int]) -> tuple[str, ...]:
    messages = [f"{number:,} images: {what}" for what, number in conversions.items()]
    if unreadable:
        entry_name, reason = next(iter(unreadable.items()))
        messages.append(
            f"{len(unreadable):,} of {count:,} images were skipped "
            f"({entry_name} {reason}{', and others' if len(unreadable) > 1 else ''})"
        )
    return tuple(messages)
