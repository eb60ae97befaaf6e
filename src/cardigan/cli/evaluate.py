"""`cardigan evaluate MODEL`: how good a generator is, number by number, with errors, floors and the protocol."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cardigan.cli.parsing import parse
from cardigan.errors import CardiganError

if TYPE_CHECKING:
    from cardigan.metrics.protocol import Report
    from cardigan.metrics.reference import Reference, Sampler


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """How to judge: the protocol, the same for one generator and for several."""

    metrics: str | None = None
    """Only these, e.g. distance,overlap: distance, kernel, overlap, classes, score, neighbour_error, memorisation, parzen, stacked."""
    samples: int = 10_000
    """How many pictures to judge; numbers of different counts cannot be compared."""
    seed: int = 0
    """Which pictures: equal seeds give equal ones."""
    truncation: float = 1.0
    """From 1 (as trained) to 0 (the average picture): below 1 most generators draw cleaner pictures, and fewer kinds of them."""
    extractor: str | None = None
    """What distances are taken over: digits, pixels, efficientnet-lite0, inception, dinov2; nothing is what suits the pictures."""
    weights: str | None = None
    """For inception and dinov2: a .safetensors file, or https://...#sha256=HASH."""
    floor: bool = True
    """Also judge as many real pictures (once; kept in ~/.cache/cardigan or $CARDIGAN_CACHE)."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(JudgeOptions):
    """Judge a trained generator. The same command prints the same numbers; each stands beside its error and what real pictures score."""

    model: Annotated[Path, tyro.conf.Positional]
    """A run directory, a checkpoint folder, a generator.safetensors, or a model of the hub, hf:user/name."""
    against: str | None = None
    """Real pictures to judge it by, for a generator that does not know its own: mnist, or a folder, archive, array, table or dataset."""
    pictures: Path | None = None
    """Write the samples nearest to training pictures beside those, as this PNG."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace the file --pictures if it is there."""


def main(words: list[str]) -> int:
    """Judge as the words say; return the exit code."""
    options = parse(EvaluateOptions, words, "cardigan evaluate")
    if options.pictures is not None:
        check_picture(options.pictures, options.overwrite)
    report, sampler, reference = judged(options.model, options, options.against)
    if options.pictures is not None:
        _write_worst(options.pictures, report, sampler, reference)
    print(json.dumps(report.to_dict(), indent=1) if options.json else text(report))
    return 0


def judged(model: Path, options: JudgeOptions, against: str | None = None) -> "tuple[Report, Sampler, Reference]":
    """Return the report on one model, and what it was made from; `against` names the real pictures of one that does not know them."""
    from cardigan.config import override
    from cardigan.data.pictures import placed
    from cardigan.metrics.cache import fetched
    from cardigan.metrics.evaluate import evaluate, snapshot_sampler
    from cardigan.metrics.features import find_extractor
    from cardigan.metrics.real import reference_for
    from cardigan.run.snapshot import read_snapshot

    if not 0 <= options.seed < 2**63:
        raise CardiganError(f"--seed is {options.seed}: expected 0 <= seed < 2^63.")
    metrics = None if options.metrics is None else [word.strip() for word in options.metrics.split(",")]
    snapshot = read_snapshot(model)
    if against is not None and snapshot.config.data.source:
        raise CardiganError(f"{model} was trained on {snapshot.config.data.source!r} and is judged by that: leave --against out.")
    config = snapshot.config if against is None else override(snapshot.config, {"data.source": placed(against)})
    reference = reference_for(config, model)
    address = options.weights
    weights = None if address is None else fetched(address) if "://" in address else Path(address)
    sampler = snapshot_sampler(snapshot, reference, options.seed, options.truncation)
    extractor = find_extractor(options.extractor or reference.extractor, reference.frame, weights)
    return evaluate(sampler, reference, extractor, options.samples, metrics, options.floor), sampler, reference


def text(report: "Report") -> str:
    """Return a report as lines for people."""
    from cardigan.metrics.protocol import direction

    signs = {"higher": "up", "lower": "down", "neither": ""}
    rows = [("", "value", "real pictures", "better", "samples", "error over")]
    for name, measure in report.measures.items():
        rows.append((name, measure.text, measure.floor_text, signs[direction(name)], f"{measure.num_samples:,}", measure.error_over))
    lines = table(rows)
    if report.class_shares:
        lines += ["", "share of each class: " + " ".join(f"{share:.3f}" for share in report.class_shares)]
    lines += ["", *(f"{name} is absent: {reason}" for name, reason in report.absent.items())]
    return "\n".join([*lines, *protocol_lines(report), f"{report.seconds:.0f} s"])


def protocol_lines(report: "Report") -> list[str]:
    """Return what must be equal for two reports to be comparable."""
    protocol = report.protocol
    weights = f", weights {protocol.extractor_hash[:12]}" if protocol.extractor_hash else ""
    cut = f", truncation {protocol.truncation:g}" if protocol.truncation != 1 else ""
    return [
        f"protocol: {protocol.num_samples:,} samples of seed {protocol.seed}{cut} ({protocol.frame}) against {protocol.num_reference:,} of "
        f"{protocol.reference} {protocol.reference_split} ({protocol.reference_hash[:12]}),",
        f"          extractor {protocol.extractor}{weights}, resizer {protocol.resizer}, cardigan {protocol.version}",
    ]


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Return rows as lines with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def check_picture(out: Path, overwrite: bool) -> None:
    if out.suffix != ".png":
        raise CardiganError(f"--pictures is {str(out)!r}: expected a name ending in .png.")
    if out.exists() and not overwrite:
        raise CardiganError(f"{out} exists already: add --overwrite to replace it, or choose another --pictures.")
    if not out.absolute().parent.is_dir():
        raise CardiganError(f"There is no folder {out.absolute().parent} to write into: make it, or choose another --pictures.")


def _write_worst(out: Path, report: "Report", sampler: "Sampler", reference: "Reference") -> None:
    from cardigan.figures.grid import png
    from cardigan.figures.neighbours import neighbour_sheet
    from cardigan.metrics.evaluate import worst_pictures
    from cardigan.run import atomic

    atomic.write_bytes(out, png(neighbour_sheet(*worst_pictures(report, sampler, reference))))
