"""Image statistics, near-duplicates, findings and advice."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from cardigan.data.mnist import read_idx
from cardigan.data.quality.advice import advice, format_bytes, recommended_spec
from cardigan.data.quality.findings import summarize_scan
from cardigan.data.quality.image_stats import ImageStats, InspectionFailure, inspect_entry, inspect_image
from cardigan.data.quality.near_duplicates import (
    NearDuplicatePair,
    candidate_pairs,
    clusters,
    near_duplicate_pairs,
    thumbnail,
)
from cardigan.data.quality.scan import scan_images
from cardigan.data.reader import Reader, StoredImage, UnreadableImage

MAX_PIXELS = 100_000_000


def random_image(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Return an image of soft color spots, different for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encode(image: Image.Image, format: str = "PNG", **settings) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **settings)
    return buffer.getvalue()


def reader_of(*stored: StoredImage | str, labels=None) -> Reader:
    """Return a reader of these entries. A string is an unreadable entry with that reason."""

    def read(index: int) -> StoredImage:
        entry = stored[index]
        if isinstance(entry, str):
            raise UnreadableImage(entry)
        return entry

    return Reader("photos", len(stored), lambda index: f"{index}.png", read, "", labels)


def scan(*stored: StoredImage | str, labels=None):
    reader = reader_of(*stored, labels=labels)
    return summarize_scan(reader, scan_images(reader, MAX_PIXELS, workers=0))


def entry_names(entries) -> list[str]:
    return [entry.name for entry in entries]


def gray_noise(high: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, (20, 30))


def with_alpha(image: Image.Image, alpha: int) -> Image.Image:
    """Return the image with this alpha in its left half."""
    image = image.convert("RGBA")
    mask = Image.new("L", image.size, 255)
    mask.paste(alpha, (0, 0, image.width // 2, image.height))
    image.putalpha(mask)
    return image


ENCODINGS = {
    "color": (encode(random_image(1)), "PNG", "RGB", 3, ""),
    "JPEG": (encode(random_image(1), "JPEG"), "JPEG", "RGB", 3, ""),
    "gray": (encode(random_image(1).convert("L")), "PNG", "gray", 1, ""),
    "gray kept as color": (encode(random_image(1).convert("L").convert("RGB")), "PNG", "RGB", 1, ""),
    "gray kept as a color JPEG": (encode(random_image(1).convert("L").convert("RGB"), "JPEG"), "JPEG", "RGB", 1, ""),
    "palette": (encode(random_image(1).quantize(16)), "PNG", "palette", 3, ""),
    "CMYK": (encode(random_image(1).convert("CMYK"), "JPEG"), "JPEG", "CMYK", 3, "CMYK converted to RGB"),
    "16-bit": (
        encode(Image.fromarray(gray_noise(65536).astype(np.uint16))),
        "PNG",
        "16-bit",
        1,
        "more than 8 bits a value, reduced to 8",
    ),
    "transparent": (encode(with_alpha(random_image(1), 0)), "PNG", "RGBA, transparent", 4, ""),
    "half transparent": (encode(with_alpha(random_image(1), 254)), "PNG", "RGBA, transparent", 4, ""),
    "opaque": (encode(with_alpha(random_image(1), 255)), "PNG", "RGBA, opaque", 3, ""),
    "opaque and gray": (encode(with_alpha(random_image(1).convert("L"), 255)), "PNG", "RGBA, opaque", 1, ""),
    "1-bit": (encode(random_image(1).convert("1")), "PNG", "1-bit", 1, ""),
    "array": (np.asarray(random_image(1)), "array", "RGB", 3, ""),
    "gray array": (gray_noise(256).astype(np.uint8), "array", "gray", 1, ""),
    "numbers": (gray_noise(256) / 255, "array", "gray", 1, ""),
}


@pytest.mark.parametrize("stored, format, color_mode, channels, conversion", ENCODINGS.values(), ids=ENCODINGS.keys())
def test_formats_and_color_modes(stored, format, color_mode, channels, conversion):
    seen = inspect_image(stored, 0, MAX_PIXELS)
    assert (seen.format, seen.color_mode, seen.channels, seen.conversion) == (format, color_mode, channels, conversion)
    assert not seen.blank and not seen.exif_rotated
    assert seen.num_bytes == (len(stored) if isinstance(stored, bytes) else stored.nbytes)


def test_pixel_hash_ignores_encoding():
    image = random_image(2)
    stored = [
        encode(image),
        encode(image, compress_level=1),
        encode(image, "BMP"),
        encode(with_alpha(image, 255)),
        np.asarray(image),
    ]
    seen = [inspect_image(each, 0, MAX_PIXELS) for each in stored]
    assert len({each.pixel_hash for each in seen}) == 1 and len({each.content_hash for each in seen}) == len(stored)
    assert inspect_image(encode(random_image(3)), 0, MAX_PIXELS).pixel_hash != seen[0].pixel_hash
    assert (
        inspect_image(encode(image.transpose(Image.Transpose.ROTATE_180)), 0, MAX_PIXELS).pixel_hash
        != seen[0].pixel_hash
    )


def test_pixel_hash_ignores_color_of_transparent_pixels():
    red, blue = (with_alpha(Image.new("RGB", (40, 30), color), 0) for color in ("red", "blue"))
    blue.paste(red.crop((20, 0, 40, 30)), (20, 0))
    assert encode(red) != encode(blue)
    assert inspect_image(encode(red), 0, MAX_PIXELS).pixel_hash == inspect_image(encode(blue), 0, MAX_PIXELS).pixel_hash


def test_pixel_hash_depends_on_shape():
    values = np.arange(200, dtype=np.uint8)
    wide, high = (inspect_image(values.reshape(shape), 0, MAX_PIXELS) for shape in ((10, 20), (20, 10)))
    assert wide.pixel_hash != high.pixel_hash


def test_exif_orientation_is_applied():
    image, exif = random_image(4), Image.Exif()
    exif[0x0112] = 6
    turned = inspect_image(encode(image, "PNG", exif=exif), 0, MAX_PIXELS)
    assert turned.exif_rotated and (turned.width, turned.height) == (48, 64)
    upright = inspect_image(encode(image.transpose(Image.Transpose.ROTATE_270)), 0, MAX_PIXELS)
    assert not upright.exif_rotated and upright.pixel_hash == turned.pixel_hash


BLANK = {
    "white": Image.new("RGB", (30, 20), "white"),
    "nearly one color": Image.fromarray(np.random.default_rng(0).integers(100, 104, (30, 30), dtype=np.uint8)),
    "wholly transparent": with_alpha(random_image(1).crop((0, 0, 32, 48)), 0).crop((0, 0, 16, 48)),
}


@pytest.mark.parametrize("image", BLANK.values(), ids=BLANK.keys())
def test_blank_images(image):
    assert inspect_image(encode(image), 0, MAX_PIXELS).blank


@pytest.mark.parametrize("color", ["white", "black", "gray"])
def test_transparent_icon_of_one_color_is_not_blank(color):
    assert not inspect_image(encode(with_alpha(Image.new("RGB", (30, 20), color), 0)), 0, MAX_PIXELS).blank


def test_faint_image_is_not_blank():
    pixels = np.zeros((10, 10), np.uint8)
    pixels[:5] = 4
    assert inspect_image(pixels, 0, MAX_PIXELS).gray_std == pytest.approx(2.0)
    assert not inspect_image(pixels, 0, MAX_PIXELS).blank
    pixels[:5] = 3
    assert inspect_image(pixels, 0, MAX_PIXELS).blank


UNREADABLE = {
    "empty": (b"", "is empty"),
    "text": (b"<html>404</html>", "is not an image of a known format"),
    "cut JPEG": (encode(random_image(1), "JPEG")[:-400], "is damaged"),
    "cut PNG": (encode(random_image(1))[:-400], "is damaged"),
    "no header": (encode(random_image(1))[:20], "is damaged"),
    "huge": (encode(Image.new("1", (20_000, 20_000))), "has 20,000 x 20,000 pixels and data.max_pixels is 100,000,000"),
    "shape": (np.zeros((4, 4, 7)), "has the shape"),
    "text array": (np.array([["a", "b"]]), "holds values of type"),
    "objects": (np.array([[None, None]]), "holds values of type"),
}


@pytest.mark.parametrize("stored, reason", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_unreadable_image_gives_reason(stored, reason):
    found = inspect_entry(reader_of(stored), 0, MAX_PIXELS)
    assert isinstance(found, InspectionFailure) and reason in found.reason


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    return Image.open(io.BytesIO(encode(image, "JPEG", quality=quality)))


NEAR_DUPLICATE_EDITS = {
    "JPEG of quality 75": lambda image: jpeg(image, 75),
    "JPEG of quality 30": lambda image: jpeg(image, 30),
    "lighter": lambda image: ImageEnhance.Brightness(image).enhance(1.05),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.9),
    "half as large": lambda image: image.resize((image.width // 2, image.height // 2)),
}
FLIPPED_EDITS = {
    f"{name}, mirrored": lambda image, change=change: change(image).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for name, change in NEAR_DUPLICATE_EDITS.items()
}


@pytest.mark.parametrize(
    "name, change", {**NEAR_DUPLICATE_EDITS, **FLIPPED_EDITS}.items(), ids=[*NEAR_DUPLICATE_EDITS, *FLIPPED_EDITS]
)
def test_near_duplicates_are_found(name, change):
    originals = [random_image(seed, (256, 192)) for seed in range(40)]
    thumbnails = np.stack([thumbnail(image) for image in [*originals, *map(change, originals)]])
    assert near_duplicate_pairs(thumbnails) == [
        NearDuplicatePair(seed, 40 + seed, "mirrored" in name) for seed in range(40)
    ]


def test_different_digits_are_not_near_duplicates():
    digits = read_idx("t10k-images-idx3-ubyte").numpy()[:4000]
    pairs = near_duplicate_pairs(np.stack([thumbnail(Image.fromarray(digit)) for digit in digits]))
    assert len(pairs) <= 2  # of 8 million


def test_recolored_image_is_not_a_near_duplicate():
    drawn = [
        np.where(np.asarray(random_image(1).convert("L"))[:, :, None] > 128, np.array(color), 255)
        for color in ([200, 0, 0], [0, 0, 200])
    ]
    assert (
        near_duplicate_pairs(np.stack([thumbnail(Image.fromarray(pixels.astype(np.uint8))) for pixels in drawn])) == []
    )


def test_hash_bands_propose_every_pair_of_brute_force():
    random = np.random.default_rng(0)
    base = random.integers(0, 256, (25, 16, 18, 3))
    noisy = np.clip(
        np.concatenate([base + random.normal(0, sigma, base.shape) for sigma in (0, 2, 4, 8)]), 0, 255
    ).astype(np.uint8)
    thumbnails = np.concatenate([noisy, noisy[:12, :, ::-1]])
    found = {(pair.first, pair.second) for pair in near_duplicate_pairs(thumbnails)}
    assert found == set(brute_force_pairs(thumbnails)) and len(found) > 100


def brute_force_pairs(thumbnails: np.ndarray):
    for second in range(len(thumbnails)):
        for first in range(second):
            if any(
                is_near_duplicate(thumbnails[first], seen) for seen in (thumbnails[second], thumbnails[second][:, ::-1])
            ):
                yield first, second


def is_near_duplicate(left: np.ndarray, right: np.ndarray) -> bool:
    hashes = []
    for thumb in (left, right):
        gray = thumb.astype(float).reshape(8, 2, 9, 2, 3).mean((1, 3)) @ np.array([0.299, 0.587, 0.114])
        hashes.append(gray[:, 1:] - gray[:, :-1] > 3)
    return (hashes[0] != hashes[1]).sum() <= 6 and np.corrcoef(left.ravel(), right.ravel())[0, 1] >= 0.99


def test_candidate_pairs_are_unique():
    random = np.random.default_rng(0)
    base = random.random((40, 64)) < 0.5
    bits = np.concatenate([base, *(with_flipped_bits(base, count, random) for count in (1, 3, 5, 6, 7))])
    both = np.concatenate([bits, with_flipped_bits(bits, 2, random)])
    places = [
        pair
        for first, second in candidate_pairs(both, len(bits))
        for pair in zip(first.tolist(), second.tolist(), strict=True)
    ]
    differing = (both[: len(bits), None] != both[None]).sum(axis=2)
    close = {
        (first, second) for first, second in zip(*np.nonzero(differing <= 6), strict=True) if first < second % len(bits)
    }
    assert len(places) == len(set(places)) and set(places) == close and len(close) > 400


def with_flipped_bits(bits: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Return the bits with `count` of each row flipped."""
    places = random.permuted(np.tile(np.arange(bits.shape[1]), (len(bits), 1)), axis=1)
    return bits ^ (places < count)


def test_jpeg_noise_does_not_hide_a_duplicate():
    digits = [Image.fromarray(digit) for digit in read_idx("t10k-images-idx3-ubyte").numpy()[:500]]
    copies = [jpeg(digit, 75) for digit in digits]
    pairs = {
        (pair.first, pair.second)
        for pair in near_duplicate_pairs(np.stack([thumbnail(image) for image in [*digits, *copies]]))
    }
    assert sum((index, 500 + index) in pairs for index in range(500)) >= 498


def test_fewer_than_two_thumbnails():
    assert near_duplicate_pairs(np.zeros((0,))) == [] and near_duplicate_pairs(np.zeros((1, 16, 18, 3), np.uint8)) == []
    assert near_duplicate_pairs(np.zeros((3, 16, 18, 3), np.uint8)) == []  # blank thumbnails have no correlation


def test_clusters_of_pairs():
    pairs = [
        NearDuplicatePair(3, 7, True),
        NearDuplicatePair(1, 2, False),
        NearDuplicatePair(7, 9, True),
        NearDuplicatePair(7, 8, False),
    ]
    assert clusters(pairs) == [[(1, False), (2, False)], [(3, False), (7, True), (8, True), (9, False)]]


def test_findings_of_a_mixed_source():
    one, two = random_image(1), random_image(2)
    found = scan(
        *(encode(one), encode(one), encode(one, compress_level=1), encode(two), encode(two.resize((128, 96)), "JPEG")),
        *(
            encode(Image.new("L", (9, 9))),
            encode(Image.new("L", (9, 9))),
            b"",
            "is encrypted",
            encode(random_image(3).convert("L")),
        ),
        labels=["cat", "cat", "dog", "dog", "dog", "cat", None, None, "cat", None],
    )
    assert (found.num_images, found.num_readable, found.trainable) == (10, 8, False)
    assert [(entry.name, entry.reason) for entry in found.unreadable] == [
        ("7.png", "is empty"),
        ("8.png", "is encrypted"),
    ]
    assert [(entry_names(group.members), group.same_bytes, group.same_class) for group in found.duplicates] == [
        (["0.png", "1.png", "2.png"], False, False)
    ]
    assert [(entry_names(group.members), group.flipped, group.largest) for group in found.near_duplicates] == [
        (["3.png", "4.png"], (False, False), 1)
    ]
    assert entry_names(found.blank) == ["5.png", "6.png"]
    assert (found.dropped_indices, found.near_duplicate_indices) == ({1, 2, 5, 6, 7, 8}, {3})
    assert found.formats == {"PNG": 7, "JPEG": 1} and found.channels == {1: 3, 3: 5}
    assert found.sizes is not None and found.class_balance is not None
    assert (
        found.sizes.num_distinct,
        found.sizes.smallest.width,
        found.sizes.largest.width,
        found.sizes.median.count,
    ) == (3, 9, 128, 5)
    assert (found.sizes.median_short_side, found.sizes.min_aspect_ratio, found.sizes.max_aspect_ratio) == (
        48.0,
        1.0,
        pytest.approx(4 / 3),
    )
    assert (
        found.class_balance.counts,
        found.class_balance.smallest_class,
        found.class_balance.largest_class,
        found.class_balance.num_unlabeled,
    ) == ({"cat": 3, "dog": 3}, "cat", "cat", 2)


def test_limits_of_a_trainable_source():
    images = [encode(random_image(seed, (16, 16))) for seed in range(99)]
    assert scan(*images, b"").trainable and not scan(*images[:98], b"", b"").trainable
    assert scan(*images[:2]).trainable and not scan(images[0]).trainable and not scan(b"").trainable
    assert not scan().trainable


@pytest.mark.parametrize("side, size", [(20, 32), (32, 32), (63, 32), (64, 64), (200, 128), (256, 256), (3000, 256)])
def test_recommended_resolution(side, size):
    found = scan(np.zeros((side, side + 9), np.uint8), np.zeros((8, 8), np.uint8), np.zeros((9000, side), np.uint8))
    assert recommended_spec(found).height == recommended_spec(found).width == size


@pytest.mark.parametrize(
    "gray, color, transparent, channels",
    [(20, 0, 0, 1), (19, 1, 0, 1), (18, 2, 0, 3), (0, 1, 1, 4), (0, 2, 1, 3), (1, 0, 1, 4), (0, 0, 0, 3)],
)
def test_recommended_channels(gray, color, transparent, channels):
    pixels = np.asarray(with_alpha(random_image(1, (16, 16)), 0))
    found = scan(*[pixels[:, :, 0]] * gray, *[pixels[:, :, :3]] * color, *[pixels] * transparent)
    assert recommended_spec(found).channels == channels


def test_advice_for_small_dataset():
    images = [encode(random_image(seed, (70, 64))) for seed in range(4)]
    found = advice(scan(*images))
    assert (found.resolution, found.channels, found.num_images, found.decoded_bytes, found.augment) == (
        64,
        3,
        4,
        4 * 64 * 64 * 3,
        True,
    )
    assert found.commands == ("cardigan train photos",)
    doubled = advice(scan(*images, *images), labels="my labels.csv", max_pixels=500)
    assert doubled.commands == (
        "cardigan check photos --labels 'my labels.csv' --max-pixels 500 --write-clean clean.zip",
        "cardigan train clean.zip --data.max-pixels 500",
    )
    assert advice(scan(*images), labels="folders").commands == ("cardigan train photos --data.labels folders",)
    assert advice(scan(*images, *images), labels="folders", clean_copy="c.zip").commands == ("cardigan train c.zip",)
    assert advice(scan(b"")).commands == () == advice(scan(b"")).recommendations


def test_advice_for_large_dataset_with_flipped_images():
    reader = reader_of(*[np.zeros((8, 8), np.uint8)] * 2000)
    seen = inspect_image(np.asarray(random_image(1, (16, 16))), 0, MAX_PIXELS)
    looks = [
        ImageStats(**{**vars(seen), "index": index, "pixel_hash": str(index).encode(), "thumbnail": image_ref(index)})
        for index in range(2000)
    ]
    found = advice(summarize_scan(reader, looks))
    assert not found.augment
    assert any("--data.horizontal-flip, which doubles" in word for word in found.recommendations)
    images = [random_image(seed) for seed in range(3)]
    flipped = [encode(each) for image in images for each in (image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))]
    assert any("leave --data.horizontal-flip out" in word for word in advice(scan(*flipped)).recommendations)


def image_ref(index: int) -> np.ndarray:
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
def test_format_bytes(num_bytes, words):
    assert format_bytes(int(num_bytes)) == words
