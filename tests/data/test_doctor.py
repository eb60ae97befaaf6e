"""What the doctor sees in one picture, which pictures it takes for the same, and what it makes of a source."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from cardigan.data.checking.advice import advice, frame_for, size_words
from cardigan.data.checking.findings import findings_of
from cardigan.data.checking.likeness import Pair, clusters, proposed_pairs, similar_pairs, thumbnail
from cardigan.data.checking.look import Look, Unread, look, looked
from cardigan.data.checking.looking import all_looks
from cardigan.data.mnist import read_idx
from cardigan.data.reader import Reader, Stored, Unreadable

MAX_PIXELS = 100_000_000


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Return soft spots of colour, different for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def saved(image: Image.Image, format: str = "PNG", **settings) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **settings)
    return buffer.getvalue()


def source(*stored: Stored | str, labels=None) -> Reader:
    """Return a reader of these entries; a string is the reason why one cannot be read."""

    def read(index: int) -> Stored:
        entry = stored[index]
        if isinstance(entry, str):
            raise Unreadable(entry)
        return entry

    return Reader("pictures", len(stored), lambda index: f"{index}.png", read, "", labels)


def findings(*stored: Stored | str, labels=None):
    reader = source(*stored, labels=labels)
    return findings_of(reader, all_looks(reader, MAX_PIXELS, workers=0))


def names(entries) -> list[str]:
    return [entry.name for entry in entries]


def grey_noise(high: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, (20, 30))


def clear(image: Image.Image, alpha: int) -> Image.Image:
    """Return the picture with this opacity in its left half."""
    image = image.convert("RGBA")
    mask = Image.new("L", image.size, 255)
    mask.paste(alpha, (0, 0, image.width // 2, image.height))
    image.putalpha(mask)
    return image


STORED = {
    "colour": (saved(picture(1)), "PNG", "RGB", 3, ""),
    "JPEG": (saved(picture(1), "JPEG"), "JPEG", "RGB", 3, ""),
    "grey": (saved(picture(1).convert("L")), "PNG", "grey", 1, ""),
    "grey kept as colour": (saved(picture(1).convert("L").convert("RGB")), "PNG", "RGB", 1, ""),
    "grey kept as a colour JPEG": (saved(picture(1).convert("L").convert("RGB"), "JPEG"), "JPEG", "RGB", 1, ""),
    "palette": (saved(picture(1).quantize(16)), "PNG", "palette", 3, ""),
    "CMYK": (saved(picture(1).convert("CMYK"), "JPEG"), "JPEG", "CMYK", 3, "CMYK converted to RGB"),
    "16-bit": (saved(Image.fromarray(grey_noise(65536).astype(np.uint16))), "PNG", "16-bit", 1, "more than 8 bits a value, reduced to 8"),
    "transparent": (saved(clear(picture(1), 0)), "PNG", "RGBA, transparent", 4, ""),
    "half transparent": (saved(clear(picture(1), 254)), "PNG", "RGBA, transparent", 4, ""),
    "opaque": (saved(clear(picture(1), 255)), "PNG", "RGBA, opaque", 3, ""),
    "opaque and grey": (saved(clear(picture(1).convert("L"), 255)), "PNG", "RGBA, opaque", 1, ""),
    "1-bit": (saved(picture(1).convert("1")), "PNG", "1-bit", 1, ""),
    "array": (np.asarray(picture(1)), "array", "RGB", 3, ""),
    "grey array": (grey_noise(256).astype(np.uint8), "array", "grey", 1, ""),
    "numbers": (grey_noise(256) / 255, "array", "grey", 1, ""),
}


@pytest.mark.parametrize("stored, format, colours, channels, conversion", STORED.values(), ids=STORED.keys())
def test_formats_and_colours_are_told_apart(stored, format, colours, channels, conversion):
    seen = look(stored, 0, MAX_PIXELS)
    assert (seen.format, seen.colours, seen.channels, seen.conversion) == (format, colours, channels, conversion)
    assert not seen.blank and not seen.turned
    assert seen.num_bytes == (len(stored) if isinstance(stored, bytes) else stored.nbytes)


def test_equal_pixels_are_known_however_they_are_stored():
    image = picture(2)
    stored = [saved(image), saved(image, compress_level=1), saved(image, "BMP"), saved(clear(image, 255)), np.asarray(image)]
    seen = [look(each, 0, MAX_PIXELS) for each in stored]
    assert len({each.pixel_hash for each in seen}) == 1 and len({each.content_hash for each in seen}) == len(stored)
    assert look(saved(picture(3)), 0, MAX_PIXELS).pixel_hash != seen[0].pixel_hash
    assert look(saved(image.transpose(Image.Transpose.ROTATE_180)), 0, MAX_PIXELS).pixel_hash != seen[0].pixel_hash


def test_colour_that_nobody_sees_makes_no_difference():
    red, blue = (clear(Image.new("RGB", (40, 30), colour), 0) for colour in ("red", "blue"))
    blue.paste(red.crop((20, 0, 40, 30)), (20, 0))
    assert saved(red) != saved(blue)
    assert look(saved(red), 0, MAX_PIXELS).pixel_hash == look(saved(blue), 0, MAX_PIXELS).pixel_hash


def test_pictures_of_other_shapes_with_the_same_values_differ():
    values = np.arange(200, dtype=np.uint8)
    wide, high = (look(values.reshape(shape), 0, MAX_PIXELS) for shape in ((10, 20), (20, 10)))
    assert wide.pixel_hash != high.pixel_hash


def test_a_picture_is_seen_upright():
    image, exif = picture(4), Image.Exif()
    exif[0x0112] = 6
    turned = look(saved(image, "PNG", exif=exif), 0, MAX_PIXELS)
    assert turned.turned and (turned.width, turned.height) == (48, 64)
    upright = look(saved(image.transpose(Image.Transpose.ROTATE_270)), 0, MAX_PIXELS)
    assert not upright.turned and upright.pixel_hash == turned.pixel_hash


BLANK = {
    "white": Image.new("RGB", (30, 20), "white"),
    "nearly one colour": Image.fromarray(np.random.default_rng(0).integers(100, 104, (30, 30), dtype=np.uint8)),
    "wholly transparent": clear(picture(1).crop((0, 0, 32, 48)), 0).crop((0, 0, 16, 48)),
}


@pytest.mark.parametrize("image", BLANK.values(), ids=BLANK.keys())
def test_blank(image):
    assert look(saved(image), 0, MAX_PIXELS).blank


@pytest.mark.parametrize("colour", ["white", "black", "grey"])
def test_an_icon_of_one_colour_is_not_blank(colour):
    assert not look(saved(clear(Image.new("RGB", (30, 20), colour), 0)), 0, MAX_PIXELS).blank


def test_just_enough_to_see():
    pixels = np.zeros((10, 10), np.uint8)
    pixels[:5] = 4
    assert look(pixels, 0, MAX_PIXELS).deviation == pytest.approx(2.0)
    assert not look(pixels, 0, MAX_PIXELS).blank
    pixels[:5] = 3
    assert look(pixels, 0, MAX_PIXELS).blank


UNREADABLE = {
    "empty": (b"", "is empty"),
    "text": (b"<html>404</html>", "is no picture of a known format"),
    "cut JPEG": (saved(picture(1), "JPEG")[:-400], "is damaged"),
    "cut PNG": (saved(picture(1))[:-400], "is damaged"),
    "no header": (saved(picture(1))[:20], "is damaged"),
    "huge": (saved(Image.new("1", (20_000, 20_000))), "has 20,000 x 20,000 pixels and data.max_pixels is 100,000,000"),
    "shape": (np.zeros((4, 4, 7)), "has the shape"),
    "text array": (np.array([["a", "b"]]), "holds values of type"),
    "objects": (np.array([[None, None]]), "holds values of type"),
}


@pytest.mark.parametrize("stored, reason", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_cannot_be_read_says_why(stored, reason):
    found = looked(source(stored), 0, MAX_PIXELS)
    assert isinstance(found, Unread) and reason in found.reason


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    return Image.open(io.BytesIO(saved(image, "JPEG", quality=quality)))


SAME = {
    "JPEG of quality 75": lambda image: jpeg(image, 75),
    "JPEG of quality 30": lambda image: jpeg(image, 30),
    "lighter": lambda image: ImageEnhance.Brightness(image).enhance(1.05),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.9),
    "half as large": lambda image: image.resize((image.width // 2, image.height // 2)),
}
MIRRORED = {
    f"{name}, mirrored": lambda image, change=change: change(image).transpose(Image.Transpose.FLIP_LEFT_RIGHT) for name, change in SAME.items()
}


@pytest.mark.parametrize("name, change", {**SAME, **MIRRORED}.items(), ids=[*SAME, *MIRRORED])
def test_pictures_that_are_nearly_the_same_are_found(name, change):
    originals = [picture(seed, (256, 192)) for seed in range(40)]
    thumbnails = np.stack([thumbnail(image) for image in [*originals, *map(change, originals)]])
    assert similar_pairs(thumbnails) == [Pair(seed, 40 + seed, "mirrored" in name) for seed in range(40)]


def test_other_pictures_are_not_taken_for_the_same():
    digits = read_idx("t10k-images-idx3-ubyte").numpy()[:4000]
    pairs = similar_pairs(np.stack([thumbnail(Image.fromarray(digit)) for digit in digits]))
    assert len(pairs) <= 2  # of 8 million


def test_the_same_drawing_in_another_colour_is_another_picture():
    drawn = [np.where(np.asarray(picture(1).convert("L"))[:, :, None] > 128, np.array(colour), 255) for colour in ([200, 0, 0], [0, 0, 200])]
    assert similar_pairs(np.stack([thumbnail(Image.fromarray(pixels.astype(np.uint8))) for pixels in drawn])) == []


def test_bands_propose_every_pair_that_comparing_all_finds():
    random = np.random.default_rng(0)
    base = random.integers(0, 256, (25, 16, 18, 3))
    noisy = np.clip(np.concatenate([base + random.normal(0, sigma, base.shape) for sigma in (0, 2, 4, 8)]), 0, 255).astype(np.uint8)
    thumbnails = np.concatenate([noisy, noisy[:12, :, ::-1]])
    found = {(pair.first, pair.second) for pair in similar_pairs(thumbnails)}
    assert found == set(compared_one_by_one(thumbnails)) and len(found) > 100


def compared_one_by_one(thumbnails: np.ndarray):
    for second in range(len(thumbnails)):
        for first in range(second):
            if any(nearly(thumbnails[first], seen) for seen in (thumbnails[second], thumbnails[second][:, ::-1])):
                yield first, second


def nearly(left: np.ndarray, right: np.ndarray) -> bool:
    hashes = []
    for thumb in (left, right):
        grey = thumb.astype(float).reshape(8, 2, 9, 2, 3).mean((1, 3)) @ np.array([0.299, 0.587, 0.114])
        hashes.append(grey[:, 1:] - grey[:, :-1] > 3)
    return (hashes[0] != hashes[1]).sum() <= 6 and np.corrcoef(left.ravel(), right.ravel())[0, 1] >= 0.99


def test_each_pair_of_close_hashes_is_proposed_once():
    random = np.random.default_rng(0)
    base = random.random((40, 64)) < 0.5
    bits = np.concatenate([base, *(flipped(base, count, random) for count in (1, 3, 5, 6, 7))])
    both = np.concatenate([bits, flipped(bits, 2, random)])
    places = [pair for first, second in proposed_pairs(both, len(bits)) for pair in zip(first.tolist(), second.tolist(), strict=True)]
    differing = (both[: len(bits), None] != both[None]).sum(axis=2)
    close = {(first, second) for first, second in zip(*np.nonzero(differing <= 6), strict=True) if first < second % len(bits)}
    assert len(places) == len(set(places)) and set(places) == close and len(close) > 400


def flipped(bits: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Return the bits, `count` of each row the other way."""
    places = random.permuted(np.tile(np.arange(bits.shape[1]), (len(bits), 1)), axis=1)
    return bits ^ (places < count)


def test_noise_in_an_even_background_does_not_hide_a_copy():
    digits = [Image.fromarray(digit) for digit in read_idx("t10k-images-idx3-ubyte").numpy()[:500]]
    copies = [jpeg(digit, 75) for digit in digits]
    pairs = {(pair.first, pair.second) for pair in similar_pairs(np.stack([thumbnail(image) for image in [*digits, *copies]]))}
    assert sum((index, 500 + index) in pairs for index in range(500)) >= 498


def test_few_or_no_thumbnails():
    assert similar_pairs(np.zeros((0,))) == [] and similar_pairs(np.zeros((1, 16, 18, 3), np.uint8)) == []
    assert similar_pairs(np.zeros((3, 16, 18, 3), np.uint8)) == []  # nothing to see, so nothing to compare


def test_pairs_join_into_groups_seen_from_their_first():
    pairs = [Pair(3, 7, True), Pair(1, 2, False), Pair(7, 9, True), Pair(7, 8, False)]
    assert clusters(pairs) == [[(1, False), (2, False)], [(3, False), (7, True), (8, True), (9, False)]]


def test_findings_of_a_source_of_everything():
    one, two = picture(1), picture(2)
    found = findings(
        *(saved(one), saved(one), saved(one, compress_level=1), saved(two), saved(two.resize((128, 96)), "JPEG")),
        *(saved(Image.new("L", (9, 9))), saved(Image.new("L", (9, 9))), b"", "is encrypted", saved(picture(3).convert("L"))),
        labels=["cat", "cat", "dog", "dog", "dog", "cat", None, None, "cat", None],
    )
    assert (found.count, found.readable, found.trainable) == (10, 8, False)
    assert [(entry.name, entry.reason) for entry in found.unreadable] == [("7.png", "is empty"), ("8.png", "is encrypted")]
    assert [(names(group.members), group.same_bytes, group.same_class) for group in found.copies] == [(["0.png", "1.png", "2.png"], False, False)]
    assert [(names(group.members), group.mirrored, group.largest) for group in found.alike] == [(["3.png", "4.png"], (False, False), 1)]
    assert names(found.blank) == ["5.png", "6.png"]
    assert (found.spoiled, found.nearly_repeated) == ({1, 2, 5, 6, 7, 8}, {3})
    assert found.formats == {"PNG": 7, "JPEG": 1} and found.channels == {1: 3, 3: 5}
    assert found.sizes is not None and found.labels is not None
    assert (found.sizes.distinct, found.sizes.smallest.width, found.sizes.largest.width, found.sizes.median.count) == (3, 9, 128, 5)
    assert (found.sizes.short_side, found.sizes.smallest_ratio, found.sizes.largest_ratio) == (48.0, 1.0, pytest.approx(4 / 3))
    assert (found.labels.counts, found.labels.smallest, found.labels.largest, found.labels.without) == ({"cat": 3, "dog": 3}, "cat", "cat", 2)


def test_one_in_a_hundred_may_be_unreadable_and_two_pictures_are_needed():
    pictures = [saved(picture(seed, (16, 16))) for seed in range(99)]
    assert findings(*pictures, b"").trainable and not findings(*pictures[:98], b"", b"").trainable
    assert findings(*pictures[:2]).trainable and not findings(pictures[0]).trainable and not findings(b"").trainable
    assert not findings().trainable


@pytest.mark.parametrize("side, size", [(20, 32), (32, 32), (63, 32), (64, 64), (200, 128), (256, 256), (3000, 256)])
def test_the_size_is_the_largest_that_the_median_picture_fills(side, size):
    found = findings(np.zeros((side, side + 9), np.uint8), np.zeros((8, 8), np.uint8), np.zeros((9000, side), np.uint8))
    assert frame_for(found).height == frame_for(found).width == size


@pytest.mark.parametrize(
    "grey, colour, transparent, channels", [(20, 0, 0, 1), (19, 1, 0, 1), (18, 2, 0, 3), (0, 1, 1, 4), (0, 2, 1, 3), (1, 0, 1, 4), (0, 0, 0, 3)]
)
def test_channels(grey, colour, transparent, channels):
    pixels = np.asarray(clear(picture(1, (16, 16)), 0))
    found = findings(*[pixels[:, :, 0]] * grey, *[pixels[:, :, :3]] * colour, *[pixels] * transparent)
    assert frame_for(found).channels == channels


def test_advice_for_few_pictures_and_the_command():
    pictures = [saved(picture(seed, (70, 64))) for seed in range(4)]
    found = advice(findings(*pictures))
    assert (found.size, found.channels, found.num_pictures, found.prepared_bytes, found.augment) == (64, 3, 4, 4 * 64 * 64 * 3, True)
    assert found.commands == ("cardigan train pictures",)
    doubled = advice(findings(*pictures, *pictures), labels="my labels.csv", max_pixels=500)
    assert doubled.commands == (
        "cardigan check pictures --labels 'my labels.csv' --max-pixels 500 --write-clean clean.zip",
        "cardigan train clean.zip --data.max-pixels 500",
    )
    assert advice(findings(*pictures), labels="folders").commands == ("cardigan train pictures --data.labels folders",)
    assert advice(findings(*pictures, *pictures), labels="folders", clean="c.zip").commands == ("cardigan train c.zip",)
    assert advice(findings(b"")).commands == () == advice(findings(b"")).words


def test_enough_pictures_need_no_augmentation_and_mirrored_ones_no_mirror():
    reader = source(*[np.zeros((8, 8), np.uint8)] * 2000)
    seen = look(np.asarray(picture(1, (16, 16))), 0, MAX_PIXELS)
    looks = [Look(**{**vars(seen), "index": index, "pixel_hash": str(index).encode(), "thumbnail": numbered(index)}) for index in range(2000)]
    found = advice(findings_of(reader, looks))
    assert not found.augment
    assert any("--data.mirror, which doubles" in word for word in found.words)
    pictures = [picture(seed) for seed in range(3)]
    mirrored = [saved(each) for image in pictures for each in (image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))]
    assert any("leave --data.mirror out" in word for word in advice(findings(*mirrored)).words)


def numbered(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (16, 18, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "num_bytes, words",
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (9_949, "9.9 kB"),
        (99_940, "100 kB"),
        (999_600, "1.0 MB"),
        (812_345_678, "812 MB"),
        (3e12, "3,000 GB"),
    ],
)
def test_sizes_in_words(num_bytes, words):
    assert size_words(int(num_bytes)) == words
