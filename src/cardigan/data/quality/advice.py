"""From findings about a source to what to do: a size, a number of channels, what to leave out, and the commands, with reasons a layman can follow.

Knows no machine and no training; every number comes from the findings.
"""

import shlex
from dataclasses import dataclass

from cardigan.config import DataConfig
from cardigan.data.decoding import DecodeSpec
from cardigan.data.quality.findings import Findings
from cardigan.data.stats import ALPHA_FRACTION, GRAY_FRACTION

RESOLUTIONS = (32, 64, 128, 256)
SMALL_DATASET = 500
"""Below this DiffAugment (arXiv:2006.10738) helps most; with 1,000 digits it already holds a short training back (docs/results.md)."""
FLIPPED_FRACTION = 0.01
NON_SQUARE_FRACTION = 0.1
RARE_CLASS_SIZE = 50
"""Pictures of a class below which its pictures will mostly be copies."""
MAX_PIXELS = DataConfig().max_pixels


@dataclass(frozen=True)
class Advice:
    """What to do with a source."""

    resolution: int
    """Height and width to train at."""
    channels: int
    num_images: int
    """What is left to train on when `num_dropped` are."""
    decoded_bytes: int
    """On the disk, decoded."""
    augment: bool
    num_dropped: int
    """Entries that are unreadable, blank, or copies of an earlier one."""
    recommendations: tuple[str, ...]
    commands: tuple[str, ...]
    """To be typed in this order; none where there is nothing to train on."""


def recommended_spec(findings: Findings, max_pixels: int = MAX_PIXELS) -> DecodeSpec:
    """Return the frame to train in: the largest of four sizes that the median picture fills, and as many channels as are worth it.

    One if nearly all pictures are grey, four if at least half are transparent somewhere, else three.
    """
    short_side = findings.sizes.median_short_side if findings.sizes else 0
    size = max([side for side in RESOLUTIONS if side <= short_side], default=RESOLUTIONS[0])
    gray, transparent = (findings.channels.get(channels, 0) / max(1, findings.num_readable) for channels in (1, 4))
    return DecodeSpec(
        size, size, 1 if gray >= GRAY_FRACTION else 4 if transparent >= ALPHA_FRACTION else 3, "crop", max_pixels
    )


def advice(findings: Findings, labels: str = "", max_pixels: int = MAX_PIXELS, clean_copy: str = "") -> Advice:
    """Return what to do with a source that was read with these settings; `clean_copy` is what was left of it, if that was written."""
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
            f"Train at {size}, though the shorter side is {short_side:g} pixels at the median: pictures will be enlarged and look soft."
        ]
    else:
        recommendations = [f"Train at {size}: the shorter side is {short_side:g} pixels at the median."]
    recommendations.append(_channel_recommendation(findings, spec))
    if findings.sizes.num_non_square > NON_SQUARE_FRACTION * findings.num_readable:
        recommendations.append(
            f"{findings.sizes.num_non_square:,} pictures are far from square and will be cut to their middle: look whether what matters is there, "
            "else add --data.resize pad, which shows all of them between borders."
        )
    recommendations.append(
        f"Decoded once and kept, they take {format_bytes(decoded_bytes)} on the disk{_decoding_time(findings.decode_seconds_per_epoch)}."
    )
    return recommendations


def _channel_recommendation(findings: Findings, spec: DecodeSpec) -> str:
    num_transparent = findings.channels.get(4, 0)
    if spec.channels == 1:
        return f"Train in grey (1 channel): {findings.channels.get(1, 0):,} of {findings.num_readable:,} pictures have no colour."
    if spec.channels == 4:
        return f"Train with transparency (4 channels): {num_transparent:,} of {findings.num_readable:,} pictures are transparent somewhere."
    alpha_note = f" {num_transparent:,} are transparent somewhere, which becomes white." if num_transparent else ""
    return f"Train in colour (3 channels).{alpha_note}"


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
        f"{num_images:,} pictures are few (under {SMALL_DATASET:,}): a GAN would learn them by heart. Show it shifted and partly covered ones "
        "(DiffAugment; `cardigan train` chooses it by itself)."
    ]


def _flip_recommendations(findings: Findings) -> list[str]:
    num_flipped = sum(sum(group.flipped) for group in findings.near_duplicates)
    if num_flipped > FLIPPED_FRACTION * findings.num_readable:
        return [f"{num_flipped:,} pictures are here mirrored already: leave --data.horizontal_flip out."]
    return [
        "Add --data.horizontal_flip, which doubles the pictures, if each could as well be seen in a mirror (faces, animals, landscapes). "
        "It would be wrong for letters, digits, writing, and whatever has a left and a right."
    ]


def _class_recommendations(findings: Findings) -> list[str]:
    labels = findings.class_balance
    if labels is None:
        return []
    recommendations = (
        [f"Add --conditional to train on the {len(labels.counts):,} classes, so that one can be asked for."]
        if len(labels.counts) > 1
        else []
    )
    num_rare = sum(count < RARE_CLASS_SIZE for count in labels.counts.values())
    if num_rare:
        recommendations.append(
            f"{num_rare:,} classes have fewer than {RARE_CLASS_SIZE} pictures: of those expect copies, or leave --conditional out."
        )
    return recommendations


def _cleaning_recommendations(findings: Findings) -> list[str]:
    recommendations = []
    if findings.dropped_indices:
        verb = "is" if len(findings.dropped_indices) == 1 else "are"
        recommendations.append(
            f"Leave out {pluralize(len(findings.dropped_indices), 'picture')} that {verb} unreadable, blank or a copy: "
            "--write-clean makes a zip file of the others."
        )
    if findings.near_duplicate_indices:
        recommendations.append(
            f"Look at the {pluralize(len(findings.near_duplicate_indices), 'picture')} like another (--contact-sheet shows some): "
            "what is there ten times is learned ten times. With --drop-near-duplicates, --write-clean leaves them out too."
        )
    return recommendations


def pluralize(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_bytes(num_bytes: int) -> str:
    """Return a number of bytes as people say it: "812 MB", "1.5 GB"."""
    amount, units = float(num_bytes), ["bytes", "kB", "MB", "GB"]
    while amount >= 999.5 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:,.1f} {units[0]}" if amount < 9.95 and units[0] != "bytes" else f"{amount:,.0f} {units[0]}"
