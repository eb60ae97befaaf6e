"""Findings about a source, summarized from the statistics of its images.

Reads no files. `advice.py` recommends what to do.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from cardigan.data.formats.labels import encode_labels
from cardigan.data.quality.image_stats import ImageStats, InspectionFailure
from cardigan.data.quality.near_duplicates import clusters, near_duplicate_pairs
from cardigan.data.reader import MIN_IMAGES, Reader

COMMON_SIZES = 10
MAX_UNREADABLE_FRACTION = 0.01
"""Maximum fraction of unreadable images in a trainable source. Training skips as many."""


@dataclass(frozen=True)
class ImageRef:
    """An image by its index in the source and its name."""

    index: int
    name: str


@dataclass(frozen=True)
class UnreadableEntry:
    """An image that cannot or must not be read. The reason continues a sentence that starts with its name."""

    index: int
    name: str
    reason: str


@dataclass(frozen=True)
class DuplicateGroup:
    """Images with equal pixels."""

    members: tuple[ImageRef, ...]
    same_bytes: bool
    """Whether the files are also equal."""
    same_class: bool
    """Whether all have the same class or none."""


@dataclass(frozen=True)
class NearDuplicateGroup:
    """Images that are nearly the same. Of exact duplicates, only the first is included."""

    members: tuple[ImageRef, ...]
    flipped: tuple[bool, ...]
    """Whether each member is flipped relative to the first."""
    largest: int
    """The index in `members` of the image with the most pixels."""


@dataclass(frozen=True)
class ImageSize:
    """Width and height of an upright image, and the number of images of this size."""

    width: int
    height: int
    count: int


@dataclass(frozen=True)
class SizeStats:
    """Sizes of the readable images. Smallest, median and largest are by number of pixels."""

    num_distinct: int
    smallest: ImageSize
    median: ImageSize
    largest: ImageSize
    most_common: tuple[ImageSize, ...]
    median_short_side: float
    """Median of the shorter side."""
    min_aspect_ratio: float
    """Aspect ratios are width / height."""
    median_aspect_ratio: float
    max_aspect_ratio: float
    num_non_square: int
    """Number of images whose longer side is more than 1.5 times the shorter one."""
    smallest_entries: tuple[ImageRef, ...]
    """The smallest images."""


@dataclass(frozen=True)
class ClassBalance:
    """The class distribution of the readable images."""

    counts: dict[str, int]
    smallest_class: str
    largest_class: str
    num_unlabeled: int
    """Number of images without a class."""


@dataclass(frozen=True)
class Findings:
    """The result of checking a source."""

    source: str
    num_images: int
    num_readable: int
    num_bytes: int
    formats: dict[str, int]
    color_modes: dict[str, int]
    channels: dict[int, int]
    """Number of images that need 1 (gray), 3 (color) or 4 channels (transparent pixels)."""
    conversions: dict[str, int]
    skipped: dict[str, int]
    num_exif_rotated: int
    sizes: SizeStats | None
    unreadable: tuple[UnreadableEntry, ...]
    duplicates: tuple[DuplicateGroup, ...]
    near_duplicates: tuple[NearDuplicateGroup, ...]
    blank: tuple[ImageRef, ...]
    class_balance: ClassBalance | None
    decode_seconds_per_epoch: float = 0.0
    """Seconds for one process to decode all readable images in the recommended shape. Default: 0, not measured."""
    notes: tuple[str, ...] = ()
    """What the user should know about the choice of images and classes."""

    @property
    def trainable(self) -> bool:
        """Whether training accepts the source: at least two readable images, and one unreadable or at most 1 %."""
        return self.num_readable >= MIN_IMAGES and len(self.unreadable) <= max(
            1, MAX_UNREADABLE_FRACTION * self.num_images
        )

    @property
    def dropped_indices(self) -> frozenset[int]:
        """The entries to leave out: unreadable, blank, and all but the first of duplicates."""
        duplicate_indices = {entry.index for group in self.duplicates for entry in group.members[1:]}
        return frozenset({entry.index for entry in (*self.unreadable, *self.blank)} | duplicate_indices)

    @property
    def near_duplicate_indices(self) -> frozenset[int]:
        """All but the largest image of each near-duplicate group, flipped or not."""
        return frozenset(
            entry.index
            for group in self.near_duplicates
            for position, entry in enumerate(group.members)
            if position != group.largest
        )


def summarize_scan(reader: Reader, results: Sequence[ImageStats | InspectionFailure]) -> Findings:
    """Return the findings from the scan results of all entries."""
    stats = [result for result in results if isinstance(result, ImageStats)]
    labels, class_names = ([], []) if reader.labels is None else encode_labels(reader.labels)
    duplicates = _duplicate_groups(reader, stats, labels)
    duplicate_indices = {entry.index for group in duplicates for entry in group.members[1:]}
    return Findings(
        source=reader.name,
        num_images=len(reader),
        num_readable=len(stats),
        num_bytes=sum(image.num_bytes for image in stats),
        formats=_counts(image.format for image in stats),
        color_modes=_counts(image.color_mode for image in stats),
        channels=dict(sorted(Counter(image.channels for image in stats).items())),
        conversions=_counts(image.conversion for image in stats if image.conversion),
        skipped=dict(reader.skipped),
        num_exif_rotated=sum(image.exif_rotated for image in stats),
        sizes=_size_stats(reader, stats) if stats else None,
        unreadable=tuple(
            UnreadableEntry(each.index, reader.entry_name(each.index), each.reason)
            for each in results
            if isinstance(each, InspectionFailure)
        ),
        duplicates=duplicates,
        near_duplicates=_near_duplicate_groups(
            reader, [image for image in stats if image.index not in duplicate_indices and not image.blank]
        ),
        blank=tuple(_image_ref(reader, image) for image in stats if image.blank),
        class_balance=_class_balance([labels[image.index] for image in stats], class_names) if class_names else None,
        notes=reader.notes,
    )


def _image_ref(reader: Reader, image_stats: ImageStats) -> ImageRef:
    return ImageRef(image_stats.index, reader.entry_name(image_stats.index))


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _duplicate_groups(
    reader: Reader, stats: Sequence[ImageStats], labels: Sequence[int | None]
) -> tuple[DuplicateGroup, ...]:
    groups: dict[bytes, list[ImageStats]] = defaultdict(list)
    for image_stats in stats:
        if not image_stats.blank:
            groups[image_stats.pixel_hash].append(image_stats)
    return tuple(
        DuplicateGroup(
            tuple(_image_ref(reader, image) for image in group),
            len({image.content_hash for image in group}) == 1,
            not labels or len({labels[image.index] for image in group}) == 1,
        )
        for group in groups.values()
        if len(group) > 1
    )


def _near_duplicate_groups(reader: Reader, stats: Sequence[ImageStats]) -> tuple[NearDuplicateGroup, ...]:
    pairs = near_duplicate_pairs(np.array([image_stats.thumbnail for image_stats in stats]))
    groups = [[(stats[position], flipped) for position, flipped in cluster] for cluster in clusters(pairs)]
    return tuple(
        NearDuplicateGroup(
            tuple(_image_ref(reader, image) for image, _ in group),
            tuple(flipped for _, flipped in group),
            max(range(len(group)), key=lambda position: group[position][0].height * group[position][0].width),
        )
        for group in groups
    )


def _size_stats(reader: Reader, stats: Sequence[ImageStats]) -> SizeStats:
    ordered = sorted(stats, key=lambda image: (image.width * image.height, image.width, image.index))
    counts = Counter((image_stats.width, image_stats.height) for image_stats in ordered)
    aspect_ratios = [image.width / image.height for image in stats]

    def size(image_stats: ImageStats) -> ImageSize:
        return ImageSize(image_stats.width, image_stats.height, counts[image_stats.width, image_stats.height])

    return SizeStats(
        len(counts),
        size(ordered[0]),
        size(ordered[len(ordered) // 2]),
        size(ordered[-1]),
        tuple(ImageSize(width, height, count) for (width, height), count in counts.most_common(COMMON_SIZES)),
        float(median(min(image.width, image.height) for image in stats)),
        min(aspect_ratios),
        median(aspect_ratios),
        max(aspect_ratios),
        sum(max(ratio, 1 / ratio) > 1.5 for ratio in aspect_ratios),
        tuple(_image_ref(reader, image) for image in ordered[:COMMON_SIZES]),
    )


def _class_balance(labels: Sequence[int | None], class_names: Sequence[str]) -> ClassBalance:
    label_counts = Counter(labels)
    counts = {name: label_counts[label] for label, name in enumerate(class_names)}
    return ClassBalance(
        counts,
        min(counts, key=lambda name: counts[name]),
        max(counts, key=lambda name: counts[name]),
        label_counts[None],
    )
