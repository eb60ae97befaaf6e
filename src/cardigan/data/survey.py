"""What a source's pictures are like, from a few hundred of them: enough to choose a size and a number of channels.

Reads headers, and pixels only where transparency has to be seen; knows nothing of training.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from cardigan.data.decoding import channels_of, opened
from cardigan.data.reader import Reader, Stored, Unreadable
from cardigan.errors import CardiganError

LOOKED_AT = 200
GREY_SHARE, CLEAR_SHARE = 0.95, 0.5
TURNED = {5, 6, 7, 8}
"""EXIF orientations in which height and width are exchanged."""
ORIENTATION = 0x0112


@dataclass(frozen=True)
class Survey:
    """A source in numbers."""

    count: int
    height: int
    """The median, as is the width."""
    width: int
    one_shape: bool
    """Whether all pictures have the same ratio of height to width."""
    channels: int
    """1 if nearly all are grey, 4 if at least half are transparent somewhere, else 3."""
    shards: int = 0
    """How many shards hold the pictures; 0 where any picture can be asked for."""


@dataclass(frozen=True)
class Glance:
    """One picture's size, and what colours it has."""

    height: int
    width: int
    channels: int


def survey(reader: Reader, max_pixels: int) -> Survey:
    """Return what pictures spread evenly over the source are like; raises CardiganError if none of them can be read."""
    step = max(1, len(reader) // LOOKED_AT)
    for places in (range(0, len(reader), step)[:LOOKED_AT], range(len(reader))):
        found = [glance for place in places if (glance := _glance(lambda place=place: reader.read(place), max_pixels)) is not None]
        if found:
            return _summed_up(found, len(reader))
    raise CardiganError(f"None of the {len(reader):,} pictures of {reader.name} can be read: `cardigan check {reader.name}` lists the reasons.")


def survey_of_entries(entries: Sequence[Stored], count: int, shards: int, name: str, max_pixels: int) -> Survey:
    """Return what these entries are like, the first of a source of `count` in so many shards, which are read as they come."""
    found = [glance for entry in entries if (glance := _glance(lambda entry=entry: entry, max_pixels)) is not None]
    if not found:
        raise CardiganError(f"None of the first {len(entries):,} pictures of {name} can be read: expected pictures of a known format.")
    return replace(_summed_up(found, count), shards=shards)


def _summed_up(found: Sequence[Glance], count: int) -> Survey:
    ratios = [glance.height / glance.width for glance in found]
    grey, clear = (sum(glance.channels == channels for glance in found) / len(found) for channels in (1, 4))
    return Survey(
        count,
        round(median(glance.height for glance in found)),
        round(median(glance.width for glance in found)),
        max(ratios) <= 1.02 * min(ratios),
        1 if grey >= GREY_SHARE else 4 if clear >= CLEAR_SHARE else 3,
    )


def _glance(read: Callable[[], Stored], max_pixels: int) -> Glance | None:
    """Return what one picture is like, None for one that cannot be read."""
    try:
        with opened(read(), max_pixels) as image:
            height, width = image.height, image.width
            if image.getexif().get(ORIENTATION) in TURNED:
                height, width = width, height
            channels = channels_of(image)
            if channels == 4 and image.convert("RGBA").getchannel("A").getextrema()[0] == 255:
                channels = 3
            return Glance(height, width, channels)
    except Unreadable:
        return None
