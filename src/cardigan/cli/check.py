"""`cardigan check SOURCE`: what is in a source of pictures, what is wrong with it, and what to do."""

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from cardigan.cli.parsing import parse
from cardigan.config import DataConfig
from cardigan.errors import CardiganError

if TYPE_CHECKING:
    from cardigan.data.checking.advice import Advice
    from cardigan.data.checking.findings import Balance, Entry, Findings, Sizes
    from cardigan.data.checking.looking import Told

LISTED = 10
"""Unreadable pictures that the text names; JSON names all."""
EXAMPLES = 3
UNTRAINABLE = 1


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Look at every picture of a source and say what is there, what is wrong, and how to train on it.

    Changes nothing. The exit code is 0 if the source can be trained on, 1 if something must be mended first (more than 1 picture in 100 is
    unreadable, or fewer than 2 are readable), 2 if it could not be checked.
    """

    source: Annotated[str, tyro.conf.Positional]
    """Your pictures: a folder, archive, array, table or dataset, as for `cardigan train`."""
    labels: str = ""
    """Where classes come from: folders, a column, or FILE or FILE:COLUMN; nothing is the source's own, if it has any."""
    workers: int | None = None
    """Processes that look; nothing is one for each core, 0 is this one."""
    max_pixels: int = DataConfig().max_pixels
    """Pictures of more pixels count as unreadable, as in training."""
    sheet: Path | None = None
    """Write a hundred of the pictures, and the worst, on one sheet: this PNG."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace the file --sheet if it is there; --write-clean never replaces one."""
    write_clean: Path | None = None
    """Write what can be trained on, without blank and equal pictures, to this zip file."""
    near: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Of pictures that are nearly the same, mirrored or not, write only the largest."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON: everything, with every name."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a check left behind."""

    sheet: str | None = None
    clean: str | None = None
    clean_pictures: int = 0


def main(words: list[str]) -> int:
    """Check what the words name; return the exit code."""
    options = parse(CheckOptions, words, "cardigan check")

    from cardigan import checkup

    _refuse_early(options)
    reader = checkup.open_source(options.source, options.labels)
    findings = checkup.check_source(reader, workers=options.workers, max_pixels=options.max_pixels, told=_progress())
    written = Written()
    if options.sheet is not None:
        checkup.write_sheet(reader, findings, options.sheet, options.max_pixels, options.overwrite)
        written = dataclasses.replace(written, sheet=str(options.sheet))
    if options.write_clean is not None and len(findings.spoiled) < findings.count:
        count = checkup.write_clean(reader, findings, options.write_clean, options.near)
        written = dataclasses.replace(written, clean=str(options.write_clean), clean_pictures=count)
    _tell(options, findings, written)
    return 0 if findings.trainable else UNTRAINABLE


def _refuse_early(options: CheckOptions) -> None:
    """Raise CardiganError for what could not be written, before minutes are spent on looking."""
    from cardigan.checkup import refuse_clean, refuse_sheet

    if options.near and options.write_clean is None:
        raise CardiganError("--near is about what --write-clean writes: give --write-clean OUT.zip too, or leave it out.")
    if options.sheet is not None:
        refuse_sheet(options.sheet, options.source, options.overwrite)
    if options.write_clean is not None:
        refuse_clean(options.write_clean)


def _progress() -> "Told | None":
    """Return what shows on a terminal how far the looking is; nothing where nobody watches."""
    if not sys.stderr.isatty():
        return None

    def told(done: int, of: int) -> None:
        end = "\r" if done < of else "\r\x1b[K"
        print(f"looking at picture {done:,} of {of:,}", end=end, file=sys.stderr, flush=True)

    return told


def _tell(options: CheckOptions, findings: "Findings", written: Written) -> None:
    from cardigan.data.checking.advice import advice

    advised = advice(findings, options.labels, options.max_pixels, written.clean or "")
    print(json.dumps(facts(findings, advised, written), indent=1) if options.json else text(findings, advised, written))


def facts(findings: "Findings", advised: "Advice", written: Written) -> dict[str, Any]:
    """Return everything as plain JSON values."""
    return {
        **dataclasses.asdict(findings),
        "trainable": findings.trainable,
        "leave_out": sorted(findings.spoiled),
        "leave_out_near": sorted(findings.nearly_repeated),
        "advice": dataclasses.asdict(advised),
        "written": dataclasses.asdict(written),
    }


def text(findings: "Findings", advised: "Advice", written: Written) -> str:
    """Return everything as lines for people: what is there, what is wrong, what to do."""
    wrong = list(_wrong(findings)) or ["Nothing."]
    lines = ["What is there", *_indented(_there(findings)), "", "What is wrong", *_indented(wrong), "", "What I would do"]
    lines += [*_indented(f"- {word}" for word in _verdict(findings, advised)), ""]
    if written.sheet:
        lines.append(f"The sheet is {written.sheet}")
    if written.clean:
        lines.append(f"{written.clean} holds the {written.clean_pictures:,} pictures that are left")
    return "\n".join([*lines, *advised.commands]).rstrip()


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _there(findings: "Findings") -> Iterator[str]:
    from cardigan.data.checking.advice import counted, size_words

    yield f"{counted(findings.count, 'picture')} in {findings.source}, {size_words(findings.num_bytes)}"
    if findings.passed_over:
        yield f"passed over   {_listed(findings.passed_over)}"
    if findings.sizes is None:
        return
    yield f"formats       {_listed(findings.formats)}"
    yield f"colours       {_listed(findings.colours)}"
    if findings.conversions:
        yield f"conversions   {_listed(findings.conversions)}"
    yield from _size_lines(findings.sizes)
    if findings.turned:
        yield f"turned        {findings.turned:,} are set upright, as their EXIF says"
    if findings.labels is not None:
        yield f"classes       {_class_line(findings.labels)}"


def _size_lines(sizes: "Sizes") -> Iterator[str]:
    small, middle, large = (f"{size.width} x {size.height}" for size in (sizes.smallest, sizes.median, sizes.largest))
    if sizes.distinct == 1:
        yield f"size          all {middle} (width x height)"
        return
    yield f"sizes         {sizes.distinct:,}, from {small} to {large}, median {middle} (width x height)"
    if sizes.largest_ratio > sizes.smallest_ratio:
        yield f"shapes        width / height from {sizes.smallest_ratio:.2f} to {sizes.largest_ratio:.2f}, median {sizes.median_ratio:.2f}"


def _class_line(labels: "Balance") -> str:
    small, large = (labels.counts[name] for name in (labels.smallest, labels.largest))
    balance = f"each with {small:,}" if small == large else f"smallest {labels.smallest!r} with {small:,}, largest {labels.largest!r} with {large:,}"
    return f"{len(labels.counts):,}, {balance}{f'; {labels.without:,} pictures have none' if labels.without else ''}"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _wrong(findings: "Findings") -> Iterator[str]:
    bad = findings.unreadable
    if bad:
        yield f"{len(bad):,} cannot be read:"
        yield from (f"  {entry.name} {entry.reason}" for entry in bad[:LISTED])
        if len(bad) > LISTED:
            yield f"  and {len(bad) - LISTED:,} more (--json lists all)"
    if findings.blank:
        yield f"{len(findings.blank):,} show nothing, one colour or nearly so: {_some([entry.name for entry in findings.blank])}"
    if findings.copies:
        repeated = sum(len(group.members) - 1 for group in findings.copies)
        yield f"{repeated:,} are equal to another, in {_groups([group.members for group in findings.copies], ' = ')}"
    differing = sum(not group.same_class for group in findings.copies)
    if differing:
        yield f"{differing:,} of these groups have members of different classes"
    if findings.alike:
        mirrored = sum(sum(group.mirrored) for group in findings.alike)
        also = f" ({mirrored:,} of them mirrored)" if mirrored else ""
        groups = _groups([group.members for group in findings.alike], " ~ ")
        yield f"{len(findings.nearly_repeated):,} are nearly the same as another{also}, in {groups}"


def _groups(groups: "Sequence[Sequence[Entry]]", sign: str) -> str:
    from cardigan.data.checking.advice import counted

    return f"{counted(len(groups), 'group')}: {_some([sign.join(entry.name for entry in group[:EXAMPLES]) for group in groups])}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:EXAMPLES]) + (" ..." if len(names) > EXAMPLES else "")


def _verdict(findings: "Findings", advised: "Advice") -> Iterator[str]:
    if not findings.readable:
        yield "Nothing here can be read: look at the reasons above."
    elif not findings.trainable:
        share = len(findings.unreadable) / findings.count
        yield (
            f"This cannot be trained on as it is: {share:.0%} of the pictures are unreadable, and 1 % is the most that training passes over."
            if findings.readable > 1
            else "One picture is not enough to train on."
        )
    yield from advised.words
