"""From findings about a source to what to do: a size, a number of channels, what to leave out, and the commands, with reasons a layman can follow.

Knows no machine and no training; every number comes from the findings.
"""

import shlex
from dataclasses import dataclass

from cardigan.config import DataConfig
from cardigan.data.checking.findings import Findings
from cardigan.data.decoding import Frame
from cardigan.data.survey import CLEAR_SHARE, GREY_SHARE

SIDES = (32, 64, 128, 256)
FEW = 500
"""Below this DiffAugment (arXiv:2006.10738) helps most; with 1,000 digits it already holds a short training back (docs/results.md)."""
MIRRORED_SHARE = 0.01
UNEQUAL_SHARE = 0.1
RARE = 50
"""Pictures of a class below which its pictures will mostly be copies."""
MAX_PIXELS = DataConfig().max_pixels


@dataclass(frozen=True)
class Advice:
    """What to do with a source."""

    size: int
    """Height and width to train at."""
    channels: int
    num_pictures: int
    """What is left to train on when `leave_out` are."""
    prepared_bytes: int
    """On the disk, decoded."""
    augment: bool
    leave_out: int
    """Entries that are unreadable, blank, or copies of an earlier one."""
    words: tuple[str, ...]
    commands: tuple[str, ...]
    """To be typed in this order; none where there is nothing to train on."""


def frame_for(findings: Findings, max_pixels: int = MAX_PIXELS) -> Frame:
    """Return the frame to train in: the largest of four sizes that the median picture fills, and as many channels as are worth it.

    One if nearly all pictures are grey, four if at least half are transparent somewhere, else three.
    """
    short = findings.sizes.short_side if findings.sizes else 0
    size = max([side for side in SIDES if side <= short], default=SIDES[0])
    grey, clear = (findings.channels.get(channels, 0) / max(1, findings.readable) for channels in (1, 4))
    return Frame(size, size, 1 if grey >= GREY_SHARE else 4 if clear >= CLEAR_SHARE else 3, "crop", max_pixels)


def advice(findings: Findings, labels: str = "", max_pixels: int = MAX_PIXELS, clean: str = "") -> Advice:
    """Return what to do with a source that was read with these settings; `clean` is what was left of it, if that was written."""
    frame = frame_for(findings, max_pixels)
    left = findings.count - len(findings.spoiled)
    prepared = left * frame.height * frame.width * frame.channels
    words = (
        *_frame_words(findings, frame, prepared),
        *_augmentation_words(left),
        *_mirror_words(findings),
        *_class_words(findings),
        *([] if clean else _leaving_words(findings)),
    )
    settings = {
        **({"--data.labels": labels} if labels and not (clean or findings.spoiled) else {}),
        **({"--data.max-pixels": str(max_pixels)} if max_pixels != MAX_PIXELS else {}),
    }
    return Advice(
        frame.height,
        frame.channels,
        left,
        prepared,
        left < FEW,
        len(findings.spoiled),
        words if findings.readable else (),
        _commands(findings, labels, max_pixels, clean, settings),
    )


def _commands(findings: Findings, labels: str, max_pixels: int, clean: str, settings: dict[str, str]) -> tuple[str, ...]:
    if findings.count - len(findings.spoiled) < 2:
        return ()
    options = [word for setting in settings.items() for word in setting]
    if clean or not findings.spoiled:
        return (shlex.join(["cardigan", "train", clean or findings.source, *options]),)
    how = [*(["--labels", labels] if labels else []), *(["--max-pixels", str(max_pixels)] if max_pixels != MAX_PIXELS else [])]
    return (
        shlex.join(["cardigan", "check", findings.source, *how, "--write-clean", "clean.zip"]),
        shlex.join(["cardigan", "train", "clean.zip", *options]),
    )


def _frame_words(findings: Findings, frame: Frame, prepared: int) -> list[str]:
    if findings.sizes is None:
        return []
    short, size = findings.sizes.short_side, f"{frame.height} x {frame.width}"
    if short < frame.height:
        words = [f"Train at {size}, though the shorter side is {short:g} pixels at the median: pictures will be enlarged and look soft."]
    else:
        words = [f"Train at {size}: the shorter side is {short:g} pixels at the median."]
    words.append(_colour_words(findings, frame))
    if findings.sizes.far_from_square > UNEQUAL_SHARE * findings.readable:
        words.append(
            f"{findings.sizes.far_from_square:,} pictures are far from square and will be cut to their middle: look whether what matters is there, "
            "else add --data.fit pad, which shows all of them between borders."
        )
    words.append(f"Decoded once and kept, they take {size_words(prepared)} on the disk{_time_words(findings.seconds_per_pass)}.")
    return words


def _colour_words(findings: Findings, frame: Frame) -> str:
    clear = findings.channels.get(4, 0)
    if frame.channels == 1:
        return f"Train in grey (1 channel): {findings.channels.get(1, 0):,} of {findings.readable:,} pictures have no colour."
    if frame.channels == 4:
        return f"Train with transparency (4 channels): {clear:,} of {findings.readable:,} pictures are transparent somewhere."
    lost = f" {clear:,} are transparent somewhere, which becomes white." if clear else ""
    return f"Train in colour (3 channels).{lost}"


def _time_words(seconds: float) -> str:
    if not seconds:
        return ""
    return (
        f"; decoding takes about {seconds / 60:,.0f} minutes of one core"
        if seconds >= 120
        else f"; decoding takes about {max(1, seconds):.0f} s of one core"
    )


def _augmentation_words(left: int) -> list[str]:
    if left >= FEW:
        return []
    return [
        f"{left:,} pictures are few (under {FEW:,}): a GAN would learn them by heart. Show it shifted and partly covered ones "
        "(DiffAugment; `cardigan train` chooses it by itself)."
    ]


def _mirror_words(findings: Findings) -> list[str]:
    mirrored = sum(sum(group.mirrored) for group in findings.alike)
    if mirrored > MIRRORED_SHARE * findings.readable:
        return [f"{mirrored:,} pictures are here mirrored already: leave --data.mirror out."]
    return [
        "Add --data.mirror, which doubles the pictures, if each could as well be seen in a mirror (faces, animals, landscapes). "
        "It would be wrong for letters, digits, writing, and whatever has a left and a right."
    ]


def _class_words(findings: Findings) -> list[str]:
    labels = findings.labels
    if labels is None:
        return []
    words = [f"Add --conditional to train on the {len(labels.counts):,} classes, so that one can be asked for."] if len(labels.counts) > 1 else []
    rare = sum(count < RARE for count in labels.counts.values())
    if rare:
        words.append(f"{rare:,} classes have fewer than {RARE} pictures: of those expect copies, or leave --conditional out.")
    return words


def _leaving_words(findings: Findings) -> list[str]:
    words = []
    if findings.spoiled:
        verb = "is" if len(findings.spoiled) == 1 else "are"
        words.append(
            f"Leave out {counted(len(findings.spoiled), 'picture')} that {verb} unreadable, blank or a copy: "
            "--write-clean makes a zip file of the others."
        )
    if findings.nearly_repeated:
        words.append(
            f"Look at the {counted(len(findings.nearly_repeated), 'picture')} like another (--sheet shows some): "
            "what is there ten times is learned ten times. With --near, --write-clean leaves them out too."
        )
    return words


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size_words(num_bytes: int) -> str:
    """Return a number of bytes as people say it: "812 MB", "1.5 GB"."""
    amount, units = float(num_bytes), ["bytes", "kB", "MB", "GB"]
    while amount >= 999.5 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:,.1f} {units[0]}" if amount < 9.95 and units[0] != "bytes" else f"{amount:,.0f} {units[0]}"
