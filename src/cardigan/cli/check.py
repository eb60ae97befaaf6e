"""`cardigan check SOURCE`: contents and problems of a source of images, and recommendations."""

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from cardigan.cli.parsing import parse
from cardigan.config_parts import DataConfig
from cardigan.errors import CardiganError, escape_control_characters

if TYPE_CHECKING:
    from cardigan.data.quality.advice import Advice
    from cardigan.data.quality.findings import ClassBalance, Findings, ImageRef, SizeStats
    from cardigan.data.reader import ProgressFn

MAX_LISTED = 10
"""Unreadable images that the text lists; JSON lists all."""
NUM_EXAMPLES = 3
EXIT_UNTRAINABLE = 1


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Read every image of a source and report its contents, problems and recommendations.

    Changes nothing. The exit code is 0 if the source can be trained on, 1 if it must be fixed first (several images and
    more than 1 in 100 are unreadable, or fewer than 2 are readable), and 2 if it could not be checked.
    """

    source: Annotated[str, tyro.conf.Positional]
    """The images: a folder, archive, array, table or dataset, as for `cardigan train`."""
    labels: str = ""
    """Source of class labels: folders, a column, FILE or FILE:COLUMN. Default: the source's own labels, if any."""
    num_workers: int | None = None
    """Worker processes. Default: one per core; 0 decodes in this process."""
    max_pixels: int = DataConfig().max_pixels
    """Images with more pixels count as unreadable, as in training."""
    contact_sheet: Path | None = None
    """Write a contact sheet with 100 images and the worst ones to this PNG."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace the file --contact-sheet if it exists. --write-clean never replaces a file."""
    write_clean: Path | None = None
    """Write the trainable images, without blank images and duplicates, to this zip file."""
    drop_near_duplicates: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Of each group of near duplicates, mirrored or not, write only the largest image."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON with all findings and all file names."""


@dataclass(frozen=True, kw_only=True)
class CheckOutputs:
    """Files that a check wrote."""

    contact_sheet: str | None = None
    clean_archive: str | None = None
    num_clean_images: int = 0


def main(argv: list[str]) -> int:
    """Check the source; return the exit code."""
    options = parse(CheckOptions, argv, "cardigan check")

    from cardigan.data.quality import check, clean

    _check_outputs(options)
    reader = check.open_source(options.source, options.labels)
    findings = check.check_source(
        reader, num_workers=options.num_workers, max_pixels=options.max_pixels, on_progress=_progress_fn()
    )
    outputs = CheckOutputs()
    if options.contact_sheet is not None:
        check.write_contact_sheet(reader, findings, options.contact_sheet, options.max_pixels, options.overwrite)
        outputs = dataclasses.replace(outputs, contact_sheet=str(options.contact_sheet))
    if options.write_clean is not None and len(findings.dropped_indices) < findings.num_images:
        count = clean.write_clean_archive(reader, findings, options.write_clean, options.drop_near_duplicates)
        outputs = dataclasses.replace(outputs, clean_archive=str(options.write_clean), num_clean_images=count)
    _print_findings(options, findings, outputs)
    return 0 if findings.trainable else EXIT_UNTRAINABLE


def _check_outputs(options: CheckOptions) -> None:
    """Raise CardiganError for outputs that cannot be written, before the check, which can take minutes."""
    from cardigan.data.quality.check import check_sheet_path
    from cardigan.data.quality.clean import check_clean_path

    if options.drop_near_duplicates and options.write_clean is None:
        raise CardiganError(
            "--drop-near-duplicates has no effect without --write-clean: add --write-clean OUT.zip, or leave it out."
        )
    if options.contact_sheet is not None:
        check_sheet_path(options.contact_sheet, options.source, options.overwrite)
    if options.write_clean is not None:
        check_clean_path(options.write_clean)


def _progress_fn() -> "ProgressFn | None":
    """Return a progress display for a terminal, or None if stderr is not one."""
    if not sys.stderr.isatty():
        return None

    def show_progress(num_done: int, total: int) -> None:
        end = "\r" if num_done < total else "\r\x1b[K"
        print(f"checking image {num_done:,} of {total:,}", end=end, file=sys.stderr, flush=True)

    return show_progress


def _print_findings(options: CheckOptions, findings: "Findings", outputs: CheckOutputs) -> None:
    from cardigan.data.quality.advice import advice

    recommendation = advice(findings, options.labels, options.max_pixels, outputs.clean_archive or "")
    print(
        json.dumps(findings_json(findings, recommendation, outputs), indent=1)
        if options.json
        else escape_control_characters(findings_text(findings, recommendation, outputs))
    )


def findings_json(findings: "Findings", recommendation: "Advice", outputs: CheckOutputs) -> dict[str, Any]:
    """Return all findings as plain JSON values."""
    return {
        **dataclasses.asdict(findings),
        "trainable": findings.trainable,
        "dropped_indices": sorted(findings.dropped_indices),
        "near_duplicate_indices": sorted(findings.near_duplicate_indices),
        "advice": dataclasses.asdict(recommendation),
        "written": dataclasses.asdict(outputs),
    }


def findings_text(findings: "Findings", recommendation: "Advice", outputs: CheckOutputs) -> str:
    """Return all findings as text: contents, problems, recommendations."""
    problems = list(_problem_lines(findings)) or ["None."]
    lines = [
        "Contents",
        *_indent(_content_lines(findings)),
        "",
        "Problems",
        *_indent(problems),
        "",
        "Recommendations",
    ]
    lines += [*_indent(f"- {line}" for line in _advice_lines(findings, recommendation)), ""]
    if outputs.contact_sheet:
        lines.append(f"Contact sheet: {outputs.contact_sheet}")
    if outputs.clean_archive:
        lines.append(f"{outputs.clean_archive} holds the {outputs.num_clean_images:,} images that remain")
    return "\n".join([*lines, *recommendation.commands]).rstrip()


def _indent(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _content_lines(findings: "Findings") -> Iterator[str]:
    from cardigan.data.quality.advice import format_bytes, pluralize

    yield f"{pluralize(findings.num_images, 'image')} in {findings.source}, {format_bytes(findings.num_bytes)}"
    if findings.skipped:
        yield f"skipped       {_counts_text(findings.skipped)}"
    yield from (f"note          {note}" for note in findings.notes)
    if findings.sizes is None:
        return
    yield f"formats       {_counts_text(findings.formats)}"
    yield f"color modes   {_counts_text(findings.color_modes)}"
    if findings.conversions:
        yield f"conversions   {_counts_text(findings.conversions)}"
    yield from _size_lines(findings.sizes)
    if findings.num_exif_rotated:
        yield f"rotated       {findings.num_exif_rotated:,} are turned upright by their EXIF orientation"
    if findings.class_balance is not None:
        yield f"classes       {_class_line(findings.class_balance)}"


def _size_lines(sizes: "SizeStats") -> Iterator[str]:
    small, middle, large = (f"{size.width} x {size.height}" for size in (sizes.smallest, sizes.median, sizes.largest))
    if sizes.num_distinct == 1:
        yield f"size          all {middle} (width x height)"
        return
    yield f"sizes         {sizes.num_distinct:,}, from {small} to {large}, median {middle} (width x height)"
    if sizes.max_aspect_ratio > sizes.min_aspect_ratio:
        yield (
            f"aspect ratio  width / height from {sizes.min_aspect_ratio:.2f} to {sizes.max_aspect_ratio:.2f}, "
            f"median {sizes.median_aspect_ratio:.2f}"
        )


def _class_line(labels: "ClassBalance") -> str:
    small, large = (labels.counts[name] for name in (labels.smallest_class, labels.largest_class))
    balance = (
        f"each with {small:,}"
        if small == large
        else f"smallest {labels.smallest_class!r} with {small:,}, largest {labels.largest_class!r} with {large:,}"
    )
    unlabeled = f"; {labels.num_unlabeled:,} images have no class" if labels.num_unlabeled else ""
    return f"{len(labels.counts):,}, {balance}{unlabeled}"


def _counts_text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _problem_lines(findings: "Findings") -> Iterator[str]:
    unreadable = findings.unreadable
    if unreadable:
        yield f"{len(unreadable):,} cannot be read:"
        yield from (f"  {entry.name} {entry.reason}" for entry in unreadable[:MAX_LISTED])
        if len(unreadable) > MAX_LISTED:
            yield f"  and {len(unreadable) - MAX_LISTED:,} more (--json lists all)"
    if findings.blank:
        names = [entry.name for entry in findings.blank]
        yield f"{len(names):,} are blank (one color or nearly so): {_examples_text(names)}"
    if findings.duplicates:
        num_duplicates = sum(len(group.members) - 1 for group in findings.duplicates)
        groups = _groups_text([group.members for group in findings.duplicates], " = ")
        yield f"{num_duplicates:,} are duplicates, in {groups}"
    num_class_conflicts = sum(not group.same_class for group in findings.duplicates)
    if num_class_conflicts:
        yield f"{num_class_conflicts:,} of these groups have members of different classes"
    if findings.near_duplicates:
        num_mirrored = sum(sum(group.flipped) for group in findings.near_duplicates)
        mirrored_text = f" ({num_mirrored:,} of them mirrored)" if num_mirrored else ""
        groups = _groups_text([group.members for group in findings.near_duplicates], " ~ ")
        yield f"{len(findings.near_duplicate_indices):,} are near duplicates{mirrored_text}, in {groups}"


def _groups_text(groups: "Sequence[Sequence[ImageRef]]", separator: str) -> str:
    from cardigan.data.quality.advice import pluralize

    examples = [separator.join(entry.name for entry in group[:NUM_EXAMPLES]) for group in groups]
    return f"{pluralize(len(groups), 'group')}: {_examples_text(examples)}"


def _examples_text(names: Sequence[str]) -> str:
    return ", ".join(names[:NUM_EXAMPLES]) + (" ..." if len(names) > NUM_EXAMPLES else "")


def _advice_lines(findings: "Findings", recommendation: "Advice") -> Iterator[str]:
    if not findings.num_readable:
        yield "No image can be read: see the reasons above."
    elif not findings.trainable:
        unreadable_fraction = len(findings.unreadable) / findings.num_images
        yield (
            f"This source cannot be trained on as it is: {unreadable_fraction:.0%} of the images are unreadable, "
            "and training skips one, or at most 1 %."
            if findings.num_readable > 1
            else "One image is not enough to train on."
        )
    yield from recommendation.recommendations
