"""From looks at single pictures to findings about the whole source: what is there, what is wrong with it.

Reads nothing and decides nothing: `advice.py` says what to do.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from cardigan.data.formats.labels import encode_labels
from cardigan.data.quality.image_stats import ImageStats, InspectionFailure
from cardigan.data.quality.near_duplicates import clusters, near_duplicate_pairs
from cardigan.data.reader import Reader

COMMON_SIZES = 10
MIN_IMAGES = 2
MAX_UNREADABLE_FRACTION = 0.01
"""Of a source that may be trained on: as many as training itself passes over."""


@dataclass(frozen=True)
class ImageRef:
    """A picture by its number in the source and its name."""

    index: int
    name: str


@dataclass(frozen=True)
class UnreadableEntry:
    """A picture that cannot be read, or must not be, and why, in words that follow its name."""

    index: int
    name: str
    reason: str


@dataclass(frozen=True)
class DuplicateGroup:
    """Pictures of equal pixels."""

    members: tuple[ImageRef, ...]
    same_bytes: bool
    """Whether the files are equal too."""
    same_class: bool
    """Whether they have one class, or none."""


@dataclass(frozen=True)
class NearDuplicateGroup:
    """Pictures that are nearly the same; of equal ones only the first is among them."""

    members: tuple[ImageRef, ...]
    flipped: tuple[bool, ...]
    """Whether each is mirrored as seen from the first."""
    largest: int
    """The place in `members` of the one with most pixels."""


@dataclass(frozen=True)
class ImageSize:
    """Width and height of an upright picture, and how many pictures have them."""

    width: int
    height: int
    count: int


@dataclass(frozen=True)
class SizeStats:
    """How large the readable pictures are. Smallest, median and largest are so by their number of pixels."""

    num_distinct: int
    smallest: ImageSize
    median: ImageSize
    largest: ImageSize
    most_common: tuple[ImageSize, ...]
    median_short_side: float
    """The median of the shorter side."""
    min_aspect_ratio: float
    """Of width to height, as are the two others."""
    median_aspect_ratio: float
    max_aspect_ratio: float
    num_non_square: int
    """How many pictures have a longer side of more than one and a half times the shorter one."""
    smallest_entries: tuple[ImageRef, ...]
    """The smallest few."""


@dataclass(frozen=True)
class ClassBalance:
    """How the readable pictures are spread over classes."""

    counts: dict[str, int]
    smallest_class: str
    largest_class: str
    num_unlabeled: int
    """Pictures that have no class."""


@dataclass(frozen=True)
class Findings:
    """What was found in a source."""

    source: str
    num_images: int
    num_readable: int
    num_bytes: int
    formats: dict[str, int]
    color_modes: dict[str, int]
    channels: dict[int, int]
    """How many pictures need 1 (grey), 3 (colour) or 4 channels (transparent somewhere)."""
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
    """To decode all readable pictures once, in the frame that is advised, by one process; 0 if that was not measured."""

    @property
    def trainable(self) -> bool:
        """Whether training would accept the source: at least two readable pictures, at most one in a hundred unreadable."""
        return self.num_readable >= MIN_IMAGES and len(self.unreadable) <= MAX_UNREADABLE_FRACTION * self.num_images

    @property
    def dropped_indices(self) -> frozenset[int]:
        """The entries to leave out: unreadable, blank, and all but the first of equal ones."""
        duplicate_indices = {entry.index for group in self.duplicates for entry in group.members[1:]}
        return frozenset({entry.index for entry in (*self.unreadable, *self.blank)} | duplicate_indices)

    @property
    def near_duplicate_indices(self) -> frozenset[int]:
        """All but the largest of each group of pictures that are nearly the same, mirrored or not."""
        return frozenset(
            entry.index
            for group in self.near_duplicates
            for place, entry in enumerate(group.members)
            if place != group.largest
        )


def summarize_scan(reader: Reader, results: Sequence[ImageStats | InspectionFailure]) -> Findings:
    """Return what the looks at all entries of a source amount to."""
    stats = [image_stats for image_stats in results if isinstance(image_stats, ImageStats)]
    labels, class_names = ([], []) if reader.labels is None else encode_labels(reader.labels)
    duplicates = _duplicate_groups(reader, stats, labels)
    duplicate_indices = {entry.index for group in duplicates for entry in group.members[1:]}
    return Findings(
        source=reader.name,
        num_images=len(reader),
        num_readable=len(stats),
        num_bytes=sum(look.num_bytes for look in stats),
        formats=_counts(look.format for look in stats),
        color_modes=_counts(look.color_mode for look in stats),
        channels=dict(sorted(Counter(look.channels for look in stats).items())),
        conversions=_counts(look.conversion for look in stats if look.conversion),
        skipped=dict(reader.skipped),
        num_exif_rotated=sum(look.exif_rotated for look in stats),
        sizes=_size_stats(reader, stats) if stats else None,
        unreadable=tuple(
            UnreadableEntry(each.index, reader.entry_name(each.index), each.reason)
            for each in results
            if isinstance(each, InspectionFailure)
        ),
        duplicates=duplicates,
        near_duplicates=_near_duplicate_groups(
            reader, [look for look in stats if look.index not in duplicate_indices and not look.blank]
        ),
        blank=tuple(_image_ref(reader, look) for look in stats if look.blank),
        class_balance=_class_balance([labels[look.index] for look in stats], class_names) if class_names else None,
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
            tuple(_image_ref(reader, look) for look in group),
            len({look.content_hash for look in group}) == 1,
            not labels or len({labels[look.index] for look in group}) == 1,
        )
        for group in groups.values()
        if len(group) > 1
    )


def _near_duplicate_groups(reader: Reader, stats: Sequence[ImageStats]) -> tuple[NearDuplicateGroup, ...]:
    pairs = near_duplicate_pairs(np.array([image_stats.thumbnail for image_stats in stats]))
    groups = [[(stats[position], flipped) for position, flipped in cluster] for cluster in clusters(pairs)]
    return tuple(
        NearDuplicateGroup(
            tuple(_image_ref(reader, look) for look, _ in group),
            tuple(mirrored for _, mirrored in group),
            max(range(len(group)), key=lambda place: group[place][0].height * group[place][0].width),
        )
        for group in groups
    )


def _size_stats(reader: Reader, stats: Sequence[ImageStats]) -> SizeStats:
    ordered = sorted(stats, key=lambda look: (look.width * look.height, look.width, look.index))
    counts = Counter((image_stats.width, image_stats.height) for image_stats in ordered)
    aspect_ratios = [look.width / look.height for look in stats]

    def size(image_stats: ImageStats) -> ImageSize:
        return ImageSize(image_stats.width, image_stats.height, counts[image_stats.width, image_stats.height])

    return SizeStats(
        len(counts),
        size(ordered[0]),
        size(ordered[len(ordered) // 2]),
        size(ordered[-1]),
        tuple(ImageSize(width, height, count) for (width, height), count in counts.most_common(COMMON_SIZES)),
        float(median(min(look.width, look.height) for look in stats)),
        min(aspect_ratios),
        median(aspect_ratios),
        max(aspect_ratios),
        sum(max(ratio, 1 / ratio) > 1.5 for ratio in aspect_ratios),
        tuple(_image_ref(reader, look) for look in ordered[:COMMON_SIZES]),
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
