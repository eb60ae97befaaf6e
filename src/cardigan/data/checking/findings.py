"""From looks at single pictures to findings about the whole source: what is there, what is wrong with it.

Reads nothing and decides nothing: `advice.py` says what to do.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from cardigan.data.checking.likeness import clusters, similar_pairs
from cardigan.data.checking.look import Look, Unread
from cardigan.data.formats.labels import classes_of
from cardigan.data.reader import Reader

COMMON_SIZES = 10
FEWEST = 2
UNREADABLE_SHARE = 0.01
"""Of a source that may be trained on: as many as training itself passes over."""


@dataclass(frozen=True)
class Entry:
    """A picture by its number in the source and its name."""

    index: int
    name: str


@dataclass(frozen=True)
class Unusable:
    """A picture that cannot be read, or must not be, and why, in words that follow its name."""

    index: int
    name: str
    reason: str


@dataclass(frozen=True)
class Copies:
    """Pictures of equal pixels."""

    members: tuple[Entry, ...]
    same_bytes: bool
    """Whether the files are equal too."""
    same_class: bool
    """Whether they have one class, or none."""


@dataclass(frozen=True)
class Alike:
    """Pictures that are nearly the same; of equal ones only the first is among them."""

    members: tuple[Entry, ...]
    mirrored: tuple[bool, ...]
    """Whether each is mirrored as seen from the first."""
    largest: int
    """The place in `members` of the one with most pixels."""


@dataclass(frozen=True)
class Size:
    """Width and height of an upright picture, and how many pictures have them."""

    width: int
    height: int
    count: int


@dataclass(frozen=True)
class Sizes:
    """How large the readable pictures are. Smallest, median and largest are so by their number of pixels."""

    distinct: int
    smallest: Size
    median: Size
    largest: Size
    common: tuple[Size, ...]
    short_side: float
    """The median of the shorter side."""
    smallest_ratio: float
    """Of width to height, as are the two others."""
    median_ratio: float
    largest_ratio: float
    far_from_square: int
    """How many pictures have a longer side of more than one and a half times the shorter one."""
    least: tuple[Entry, ...]
    """The smallest few."""


@dataclass(frozen=True)
class Balance:
    """How the readable pictures are spread over classes."""

    counts: dict[str, int]
    smallest: str
    largest: str
    without: int
    """Pictures that have no class."""


@dataclass(frozen=True)
class Findings:
    """What was found in a source."""

    source: str
    count: int
    readable: int
    num_bytes: int
    formats: dict[str, int]
    colours: dict[str, int]
    channels: dict[int, int]
    """How many pictures need 1 (grey), 3 (colour) or 4 channels (transparent somewhere)."""
    conversions: dict[str, int]
    passed_over: dict[str, int]
    turned: int
    sizes: Sizes | None
    unreadable: tuple[Unusable, ...]
    copies: tuple[Copies, ...]
    alike: tuple[Alike, ...]
    blank: tuple[Entry, ...]
    labels: Balance | None
    seconds_per_pass: float = 0.0
    """To decode all readable pictures once, in the frame that is advised, by one process; 0 if that was not measured."""

    @property
    def trainable(self) -> bool:
        """Whether training would accept the source: at least two readable pictures, at most one in a hundred unreadable."""
        return self.readable >= FEWEST and len(self.unreadable) <= UNREADABLE_SHARE * self.count

    @property
    def spoiled(self) -> frozenset[int]:
        """The entries to leave out: unreadable, blank, and all but the first of equal ones."""
        copies = {entry.index for group in self.copies for entry in group.members[1:]}
        return frozenset({entry.index for entry in (*self.unreadable, *self.blank)} | copies)

    @property
    def nearly_repeated(self) -> frozenset[int]:
        """All but the largest of each group of pictures that are nearly the same, mirrored or not."""
        return frozenset(entry.index for group in self.alike for place, entry in enumerate(group.members) if place != group.largest)


def findings_of(reader: Reader, found: Sequence[Look | Unread]) -> Findings:
    """Return what the looks at all entries of a source amount to."""
    looks = [look for look in found if isinstance(look, Look)]
    numbers, names = ([], []) if reader.labels is None else classes_of(reader.labels)
    copies = _copies(reader, looks, numbers)
    repeated = {entry.index for group in copies for entry in group.members[1:]}
    return Findings(
        source=reader.name,
        count=len(reader),
        readable=len(looks),
        num_bytes=sum(look.num_bytes for look in looks),
        formats=_counted(look.format for look in looks),
        colours=_counted(look.colours for look in looks),
        channels=dict(sorted(Counter(look.channels for look in looks).items())),
        conversions=_counted(look.conversion for look in looks if look.conversion),
        passed_over=dict(reader.passed_over),
        turned=sum(look.turned for look in looks),
        sizes=_sizes(reader, looks) if looks else None,
        unreadable=tuple(Unusable(each.index, reader.title(each.index), each.reason) for each in found if isinstance(each, Unread)),
        copies=copies,
        alike=_alike(reader, [look for look in looks if look.index not in repeated and not look.blank]),
        blank=tuple(_entry(reader, look) for look in looks if look.blank),
        labels=_balance([numbers[look.index] for look in looks], names) if names else None,
    )


def _entry(reader: Reader, look: Look) -> Entry:
    return Entry(look.index, reader.title(look.index))


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _copies(reader: Reader, looks: Sequence[Look], numbers: Sequence[int | None]) -> tuple[Copies, ...]:
    groups: dict[bytes, list[Look]] = defaultdict(list)
    for look in looks:
        if not look.blank:
            groups[look.pixel_hash].append(look)
    return tuple(
        Copies(
            tuple(_entry(reader, look) for look in group),
            len({look.content_hash for look in group}) == 1,
            not numbers or len({numbers[look.index] for look in group}) == 1,
        )
        for group in groups.values()
        if len(group) > 1
    )


def _alike(reader: Reader, looks: Sequence[Look]) -> tuple[Alike, ...]:
    pairs = similar_pairs(np.array([look.thumbnail for look in looks]))
    groups = [[(looks[place], mirrored) for place, mirrored in cluster] for cluster in clusters(pairs)]
    return tuple(
        Alike(
            tuple(_entry(reader, look) for look, _ in group),
            tuple(mirrored for _, mirrored in group),
            max(range(len(group)), key=lambda place: group[place][0].height * group[place][0].width),
        )
        for group in groups
    )


def _sizes(reader: Reader, looks: Sequence[Look]) -> Sizes:
    ordered = sorted(looks, key=lambda look: (look.width * look.height, look.width, look.index))
    counts = Counter((look.width, look.height) for look in ordered)
    ratios = [look.width / look.height for look in looks]

    def size(look: Look) -> Size:
        return Size(look.width, look.height, counts[look.width, look.height])

    return Sizes(
        len(counts),
        size(ordered[0]),
        size(ordered[len(ordered) // 2]),
        size(ordered[-1]),
        tuple(Size(width, height, count) for (width, height), count in counts.most_common(COMMON_SIZES)),
        float(median(min(look.width, look.height) for look in looks)),
        min(ratios),
        median(ratios),
        max(ratios),
        sum(max(ratio, 1 / ratio) > 1.5 for ratio in ratios),
        tuple(_entry(reader, look) for look in ordered[:COMMON_SIZES]),
    )


def _balance(numbers: Sequence[int | None], names: Sequence[str]) -> Balance:
    counted = Counter(numbers)
    counts = {name: counted[number] for number, name in enumerate(names)}
    return Balance(counts, min(counts, key=lambda name: counts[name]), max(counts, key=lambda name: counts[name]), counted[None])
