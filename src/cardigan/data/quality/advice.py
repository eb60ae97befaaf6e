"""Advice from findings: the training shape, which images to leave out, and commands, with plain reasons.

Every number comes from the findings. Does not know the machine or the training.
"""

import shlex
from dataclasses import dataclass

from cardigan.config_parts import DataConfig
from cardigan.data.decoding import DecodeSpec
from cardigan.data.quality.findings import Findings
from cardigan.data.stats import ALPHA_FRACTION, GRAY_FRACTION

RESOLUTIONS = (32, 64, 128, 256)
SMALL_DATASET = 500
"""DiffAugment (arXiv:2006.10738) helps most below this; 1,000 digits already train slower with it (docs/results.md)."""
FLIPPED_FRACTION = 0.01
NON_SQUARE_FRACTION = 0.1
RARE_CLASS_SIZE = 50
"""A class with fewer images gives mostly copies."""
MAX_PIXELS = DataConfig().max_pixels


@dataclass(frozen=True)
class Advice:
    """Recommendations for a source."""

    resolution: int
    """Height and width to train at."""
    channels: int
    num_images: int
    """Number of training images without the `num_dropped` entries."""
    decoded_bytes: int
    """Size of the decoded images on disk."""
    augment: bool
    num_dropped: int
    """Entries that are unreadable, blank, or copies of an earlier one."""
    recommendations: tuple[str, ...]
    commands: tuple[str, ...]
    """Commands to run in this order; empty if there is nothing to train on."""


def recommended_spec(findings: Findings, max_pixels: int = MAX_PIXELS) -> DecodeSpec:
    """Return the recommended training shape.

    The size is the largest of `RESOLUTIONS` up to the median short side. The channels are 1 if nearly all images are
    gray, 4 if at least half have transparent pixels, else 3.
    """
    short_side = findings.sizes.median_short_side if findings.sizes else 0
    size = max([side for side in RESOLUTIONS if side <= short_side], default=RESOLUTIONS[0])
    gray, transparent = (findings.channels.get(channels, 0) / max(1, findings.num_readable) for channels in (1, 4))
    return DecodeSpec(
        size, size, 1 if gray >= GRAY_FRACTION else 4 if transparent >= ALPHA_FRACTION else 3, "crop", max_pixels
    )


def advice(findings: Findings, labels: str = "", max_pixels: int = MAX_PIXELS, clean_copy: str = "") -> Advice:
    """Return the advice for a source read with these settings. `clean_copy` is the path of its clean copy, if any."""
    spec = recommended_spec(findings, max_pixels)
    num_images = findings.num_images - len(findings.dropped_indices)
    decoded_bytes = num_images * spec.height * spec.width * spec.channels
    recommendations = (
        *_size_recommendations(findings, spec, decoded_bytes),
        *_augmentation_recommendations(num_images),
        *_flip_recommendations(findings),
        *_class_recommendations(findings),
        *([] if clean_copy else _cleaning_recommendations(findings)),
    )
    settings = {
        **({"--data.labels": labels} if labels and not (clean_copy or findings.dropped_indices) else {}),
        **({"--data.max-pixels": str(max_pixels)} if max_pixels != MAX_PIXELS else {}),
    }
    return Advice(
        spec.height,
        spec.channels,
        num_images,
        decoded_bytes,
        num_images < SMALL_DATASET,
        len(findings.dropped_indices),
        recommendations if findings.num_readable else (),
        _commands(findings, labels, max_pixels, clean_copy, settings),
    )


def _commands(
    findings: Findings, labels: str, max_pixels: int, clean_copy: str, settings: dict[str, str]
) -> tuple[str, ...]:
    if findings.num_images - len(findings.dropped_indices) < 2:
        return ()
    options = [word for setting in settings.items() for word in setting]
    if clean_copy or not findings.dropped_indices:
        return (shlex.join(["cardigan", "train", clean_copy or findings.source, *options]),)
    check_options = [
        *(["--labels", labels] if labels else []),
        *(["--max-pixels", str(max_pixels)] if max_pixels != MAX_PIXELS else []),
    ]
    return (
        shlex.join(["cardigan", "check", findings.source, *check_options, "--write-clean", "clean.zip"]),
        shlex.join(["cardigan", "train", "clean.zip", *options]),
    )


def _size_recommendations(findings: Findings, spec: DecodeSpec, decoded_bytes: int) -> list[str]:
    if findings.sizes is None:
        return []
    short_side, size = findings.sizes.median_short_side, f"{spec.height} x {spec.width}"
    if short_side < spec.height:
        recommendations = [
            f"Train at {size}. The median short side is only {short_side:g} pixels, so images are enlarged and "
            "look soft."
        ]
    else:
        recommendations = [f"Train at {size}: the median short side is {short_side:g} pixels."]
    recommendations.append(_channel_recommendation(findings, spec))
    if findings.sizes.num_non_square > NON_SQUARE_FRACTION * findings.num_readable:
        recommendations.append(
            f"{findings.sizes.num_non_square:,} images are far from square and are cropped to the center. If that "
            "cuts off what matters, add --data.resize pad, which keeps the whole image between borders."
        )
    recommendations.append(
        f"The decoded images take {format_bytes(decoded_bytes)} on disk"
        f"{_decoding_time(findings.decode_seconds_per_epoch)}."
    )
    return recommendations


def _channel_recommendation(findings: Findings, spec: DecodeSpec) -> str:
    num_transparent = findings.channels.get(4, 0)
    if spec.channels == 1:
        num_gray = findings.channels.get(1, 0)
        return f"Train in gray (1 channel): {num_gray:,} of {findings.num_readable:,} images have no color."
    if spec.channels == 4:
        return (
            f"Train with transparency (4 channels): {num_transparent:,} of {findings.num_readable:,} images have "
            "transparent pixels."
        )
    alpha_note = f" {num_transparent:,} have transparent pixels, which become white." if num_transparent else ""
    return f"Train in color (3 channels).{alpha_note}"


def _decoding_time(seconds: float) -> str:
    if not seconds:
        return ""
    return (
        f"; decoding takes about {seconds / 60:,.0f} minutes of one core"
        if seconds >= 120
        else f"; decoding takes about {max(1, seconds):.0f} s of one core"
    )


def _augmentation_recommendations(num_images: int) -> list[str]:
    if num_images >= SMALL_DATASET:
        return []
    return [
        f"{num_images:,} images are few (under {SMALL_DATASET:,}): a GAN would memorize them. Use DiffAugment, which "
        "shifts images and covers parts of them; `cardigan train` chooses it automatically."
    ]


def _flip_recommendations(findings: Findings) -> list[str]:
    num_flipped = sum(sum(group.flipped) for group in findings.near_duplicates)
    if num_flipped > FLIPPED_FRACTION * findings.num_readable:
        return [f"{num_flipped:,} images are flips of others already: leave --data.horizontal-flip out."]
    return [
        "Add --data.horizontal-flip, which doubles the images, if they look right in a mirror (faces, animals, "
        "landscapes). It is wrong for letters, digits, text, and anything with a left and a right side."
    ]


def _class_recommendations(findings: Findings) -> list[str]:
    labels = findings.class_balance
    if labels is None:
        return []
    recommendations = (
        [f"Add --conditional to train on the {len(labels.counts):,} classes and sample from a chosen class."]
        if len(labels.counts) > 1
        else []
    )
    num_rare = sum(count < RARE_CLASS_SIZE for count in labels.counts.values())
    if num_rare:
        recommendations.append(
            f"{num_rare:,} classes have fewer than {RARE_CLASS_SIZE} images: expect copies in these classes, or leave "
            "--conditional out."
        )
    return recommendations


def _cleaning_recommendations(findings: Findings) -> list[str]:
    recommendations = []
    if findings.dropped_indices:
        verb = "is" if len(findings.dropped_indices) == 1 else "are"
        recommendations.append(
            f"Leave out {pluralize(len(findings.dropped_indices), 'image')} that {verb} unreadable, blank or a "
            "duplicate: --write-clean writes a zip file of the others."
        )
    if findings.near_duplicate_indices:
        recommendations.append(
            f"Look at the {pluralize(len(findings.near_duplicate_indices), 'near-duplicate image')} (--contact-sheet "
            "shows some): an image that occurs ten times is learned ten times. With --drop-near-duplicates, "
            "--write-clean leaves them out too."
        )
    return recommendations


def pluralize(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_bytes(num_bytes: int) -> str:
    """Return a readable number of bytes: "812 MB", "1.5 GB"."""
    amount, units = float(num_bytes), ["bytes", "kB", "MB", "GB"]
    while amount >= 999.5 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:,.1f} {units[0]}" if amount < 9.95 and units[0] != "bytes" else f"{amount:,.0f} {units[0]}"
