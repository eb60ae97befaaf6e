"""What a source's pictures are like, from a few hundred of them: enough to choose a size and a number of channels.

Reads headers, and pixels only where transparency has to be seen; knows nothing of training.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from cardigan.data.decoding import num_channels, open_image
from cardigan.data.reader import Reader, StoredImage, UnreadableImage
from cardigan.errors import CardiganError

NUM_INSPECTED = 200
GRAY_FRACTION, ALPHA_FRACTION = 0.95, 0.5
TRANSPOSED_ORIENTATIONS = {5, 6, 7, 8}
"""EXIF orientations in which height and width are exchanged."""
EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class DatasetStats:
    """A source in numbers."""

    num_images: int
    height: int
    """The median, as is the width."""
    width: int
    same_aspect_ratio: bool
    """Whether all pictures have the same ratio of height to width."""
    channels: int
    """1 if nearly all are grey, 4 if at least half are transparent somewhere, else 3."""
    num_shards: int = 0
    """How many shards hold the pictures; 0 where any picture can be asked for."""


@dataclass(frozen=True)
class ImageInfo:
    """One picture's size, and what colours it has."""

    height: int
    width: int
    channels: int


def reader_stats(reader: Reader, max_pixels: int) -> DatasetStats:
    """Return what pictures spread evenly over the source are like; raises CardiganError if none of them can be read."""
    step = max(1, len(reader) // NUM_INSPECTED)
    for indices in (range(0, len(reader), step)[:NUM_INSPECTED], range(len(reader))):
        infos = [
            info
            for index in indices
            if (info := _image_info(lambda place=index: reader.read(place), max_pixels)) is not None
        ]
        if infos:
            return _aggregate(infos, len(reader))
    raise CardiganError(
        f"None of the {len(reader):,} pictures of {reader.name} can be read: `cardigan check {reader.name}` lists the reasons."
    )


def entry_stats(
    entries: Sequence[StoredImage], num_images: int, num_shards: int, name: str, max_pixels: int
) -> DatasetStats:
    """Return what these entries are like, the first of a source of `num_images` in so many shards, which are read as they come."""
    infos = [info for entry in entries if (info := _image_info(lambda entry=entry: entry, max_pixels)) is not None]
    if not infos:
        raise CardiganError(
            f"None of the first {len(entries):,} pictures of {name} can be read: expected pictures of a known format."
        )
    return replace(_aggregate(infos, num_images), num_shards=num_shards)


def _aggregate(infos: Sequence[ImageInfo], num_images: int) -> DatasetStats:
    aspect_ratios = [info.height / info.width for info in infos]
    gray, transparent = (sum(glance.channels == channels for glance in infos) / len(infos) for channels in (1, 4))
    return DatasetStats(
        num_images,
        round(median(glance.height for glance in infos)),
        round(median(glance.width for glance in infos)),
        max(aspect_ratios) <= 1.02 * min(aspect_ratios),
        1 if gray >= GRAY_FRACTION else 4 if transparent >= ALPHA_FRACTION else 3,
    )


def _image_info(read: Callable[[], StoredImage], max_pixels: int) -> ImageInfo | None:
    """Return what one picture is like, None for one that cannot be read."""
    try:
        with open_image(read(), max_pixels) as image:
            height, width = image.height, image.width
            if image.getexif().get(EXIF_ORIENTATION) in TRANSPOSED_ORIENTATIONS:
                height, width = width, height
            channels = num_channels(image)
            if channels == 4 and image.convert("RGBA").getchannel("A").getextrema()[0] == 255:
                channels = 3
            return ImageInfo(height, width, channels)
    except UnreadableImage:
        return None
