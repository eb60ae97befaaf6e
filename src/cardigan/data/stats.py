"""Statistics of a source from a few hundred images: enough to choose the size and the number of channels.

Reads headers, and pixels only to detect transparency.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from cardigan.data.decoding import EXIF_ORIENTATION, num_channels, open_image
from cardigan.data.reader import Reader, StoredImage, UnreadableImage
from cardigan.errors import CardiganError

NUM_INSPECTED = 200
GRAY_FRACTION, ALPHA_FRACTION = 0.95, 0.5
TRANSPOSED_ORIENTATIONS = {5, 6, 7, 8}
"""EXIF orientations that swap height and width."""


@dataclass(frozen=True)
class DatasetStats:
    """Size and shape of a source."""

    num_images: int
    height: int
    """Median height."""
    width: int
    """Median width."""
    same_aspect_ratio: bool
    """Whether all images have the same ratio of height to width."""
    channels: int
    """1 if nearly all images are gray, 4 if at least half have transparent pixels, else 3."""
    num_shards: int = 0
    """Number of shards. Default: 0, a source with access by index."""


@dataclass(frozen=True)
class ImageInfo:
    """Size and channels of one image."""

    height: int
    width: int
    channels: int


def reader_stats(reader: Reader, max_pixels: int) -> DatasetStats:
    """Return statistics of evenly spaced images. Raises CardiganError if no image of the source is readable."""
    step = max(1, len(reader) // NUM_INSPECTED)
    for indices in (range(0, len(reader), step)[:NUM_INSPECTED], range(len(reader))):
        infos = [
            info
            for index in indices
            if (info := _image_info(lambda index=index: reader.read(index), max_pixels)) is not None
        ]
        if infos:
            return _aggregate(infos, len(reader))
    raise CardiganError(
        f"None of the {len(reader):,} images of {reader.name} can be read: "
        f"`cardigan check {reader.name}` lists the reasons."
    )


def entry_stats(
    entries: Sequence[StoredImage], num_images: int, num_shards: int, name: str, max_pixels: int
) -> DatasetStats:
    """Return statistics of these entries, the first of a streamed source with `num_images` in `num_shards`."""
    infos = [info for entry in entries if (info := _image_info(lambda entry=entry: entry, max_pixels)) is not None]
    if not infos:
        raise CardiganError(
            f"None of the first {len(entries):,} images of {name} can be read: expected images of a known format."
        )
    return replace(_aggregate(infos, num_images), num_shards=num_shards)


def _aggregate(infos: Sequence[ImageInfo], num_images: int) -> DatasetStats:
    aspect_ratios = [info.height / info.width for info in infos]
    gray, transparent = (sum(info.channels == channels for info in infos) / len(infos) for channels in (1, 4))
    return DatasetStats(
        num_images,
        round(median(info.height for info in infos)),
        round(median(info.width for info in infos)),
        max(aspect_ratios) <= 1.02 * min(aspect_ratios),
        1 if gray >= GRAY_FRACTION else 4 if transparent >= ALPHA_FRACTION else 3,
    )


def _image_info(read: Callable[[], StoredImage], max_pixels: int) -> ImageInfo | None:
    """Return size and channels of one image, None if it is unreadable."""
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
