"""`cardigan export MODEL --format F`: files that run elsewhere, each checked against PyTorch before it is kept, with a model card."""

import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from cardigan.cli.parsing import parse
from cardigan.errors import CardiganError

if TYPE_CHECKING:
    from cardigan.exports.deed import Exported


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Export a trained generator. Nothing is kept that draws other pictures than PyTorch, and every export carries a model card."""

    model: Annotated[Path, tyro.conf.Positional]
    """A run directory, a checkpoint folder, a generator.safetensors, or a model of the hub, hf:user/name."""
    format: Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
    """safetensors, onnx, pt2, html or samples; several times for several, which then lie in one folder."""
    out: Path | None = None
    """The file to write, or for several formats the folder; samples are a folder, .zip, .npz or .parquet. By default the model's name."""
    weights: Literal["float32", "float16", "int8"] | None = None
    """Store weights as float32, float16 or int8; nothing is float16 for html and float32 for all others."""
    samples: int | None = None
    """For samples: how many pictures; nothing is 1,000."""
    seed: int | None = None
    """For samples: which ones; nothing is 0."""
    truncation: float | None = None
    """For samples: from 1, as trained (which nothing is), down to 0, the average picture."""
    label: str | None = None
    """For samples: the class of all of them, by its name or number; nothing is a random one for each."""
    judge: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Judge the pictures as `cardigan evaluate` does, before and after rounding, and tell it in the card."""
    judge_samples: int | None = None
    """How many pictures to judge; nothing is 10,000."""
    data_licence: str = ""
    """The licence of the pictures it was trained on, for the card, e.g. cc-by-4.0."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace the file --out if it is there; a folder is never replaced."""


SAMPLES_ONLY = ("samples", "seed", "truncation", "label")


def main(words: list[str]) -> int:
    """Export as the words say; return the exit code."""
    options = parse(ExportOptions, words, "cardigan export")
    formats = list(dict.fromkeys(options.format))
    if not formats:
        raise CardiganError("No format was given: add --format safetensors, onnx, pt2, html or samples.")
    told = [f"--{name}" for name in SAMPLES_ONLY if getattr(options, name) is not None]
    if told and "samples" not in formats:
        raise CardiganError(f"{told[0]} has no effect without --format samples: leave it out.")
    if options.judge_samples is not None and not options.judge:
        raise CardiganError("--judge-samples has no effect without --judge: add it, or leave it out.")
    if len(formats) > 1 and options.overwrite:
        raise CardiganError("--overwrite has no effect for several formats, which lie in a new folder: leave it out.")

    from cardigan.exports.deed import export, export_all
    from cardigan.exports.interface import Settings
    from cardigan.exports.quality import SAMPLES

    judge = None if not options.judge else SAMPLES if options.judge_samples is None else options.judge_samples
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing half-written stays behind
    asked = {"num": options.samples, "seed": options.seed, "truncation": options.truncation, "label": options.label}
    drawn: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    if len(formats) == 1:
        more = {"judge": judge, "data_licence": options.data_licence, "overwrite": options.overwrite, **drawn}
        found = [export(options.model, formats[0], options.out, weights=options.weights, **more)]
    else:
        found = export_all(options.model, formats, options.out, options.weights, Settings(**drawn), judge, options.data_licence)
    print("\n".join(line for each in found for line in _told(each)))
    print(f"card: {found[0].card}")
    return 0


def _told(exported: "Exported") -> list[str]:
    from cardigan.exports.quality import cost_lines

    size = f"{exported.num_bytes / 1e6:,.1f} MB"
    rounding = f", fewer bits change it by {exported.rounding:.1e}" if exported.weights != "float32" else ""
    kind = "" if exported.format == "samples" else f", {exported.weights}"
    lines = [f"{exported.path}: {size}{kind}, largest difference from PyTorch {exported.difference:.1e}{rounding}, sha256 {exported.sha256[:16]}"]
    return [*lines, *(["", *cost_lines(exported.cost), ""] if exported.cost else [])]
