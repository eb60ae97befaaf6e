"""`cardigan mix MODEL`: sums and differences of pictures' latents, or what lies between four of them."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cardigan.cli.parsing import parse
from cardigan.cli.writing import check_out
from cardigan.errors import CardiganError
from cardigan.lists import parse_amounts, parse_points, parse_seeds

if TYPE_CHECKING:
    from cardigan.explore.views import Row
    from cardigan.run.snapshot import Snapshot

ENDINGS = {".png"}


@dataclass(frozen=True, kw_only=True)
class MixOptions:
    """Add averages of pictures and subtract others, as the DCGAN paper does with faces; or draw what lies between four seeds; or forget a thing."""

    model: Annotated[Path, tyro.conf.Positional]
    """A run directory, a checkpoint folder, a generator.safetensors, or a model of the hub, hf:user/name."""
    add: Annotated[list[str], tyro.conf.UseAppendAction] = field(default_factory=list)
    """A group of seeds, e.g. 1,2,3, whose average is added; may be given more than once."""
    subtract: Annotated[list[str], tyro.conf.UseAppendAction] = field(default_factory=list)
    """A group of seeds whose average is subtracted; may be given more than once."""
    corners: str | None = None
    """Instead: four seeds, the corners of a square, e.g. 0,1,2,3 (top left, top right, bottom left, bottom right)."""
    at: str = "0.5,0.5"
    """Where in that square, across and down, 0 to 1."""
    grid: int = 1
    """Draw so many places across and down, around that one."""
    span: float = 0.5
    """How much of the square they cover, 0 to 1."""
    forget: Annotated[list[str], tyro.conf.UseAppendAction] = field(default_factory=list)
    """Instead: a seed and a box in its picture (left, top, right, bottom), e.g. 3:10,5,20,18, to forget; may be given more than once."""
    seeds: str = "0-9"
    """With --forget: the pictures to draw, above as they are, below without it."""
    directions: str = ""
    """Principal directions to go along, and how far in their spreads, e.g. 0:1.5,3:-2."""
    label: str | None = None
    """The class of all pictures, by its name or number; by default that of the first seed."""
    truncation: float = 1.0
    """From 1, as trained, down to 0, the average picture."""
    out: Path = Path("mix.png")
    """NAME.png: a row for each group, with its average at the end, and the result with what lies around it; or the grid."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace the file --out if it is there."""


def main(words: list[str]) -> int:
    """Mix as the words say; return the exit code."""
    options = parse(MixOptions, words, "cardigan mix")
    check_out(options.out, ENDINGS, options.overwrite)
    add, subtract = (
        [parse_points(group, option) for group in groups] for groups, option in ((options.add, "--add"), (options.subtract, "--subtract"))
    )
    corners = None if options.corners is None else parse_points(options.corners, "--corners")
    windows = list(options.forget)
    if [bool(add), corners is not None, bool(windows)].count(True) != 1 or (subtract and not add):
        raise CardiganError(
            "Expected one of: groups of seeds (--add 1,2,3 --subtract 4,5,6), four --corners, or --forget 3:10,5,20,18; not both and not neither."
        )
    if corners is not None and len(corners) != 4:
        raise CardiganError(f"--corners are {len(corners)} seeds: expected four, such as 0,1,2,3.")
    place, amounts = parse_place(options.at), parse_amounts(options.directions)

    from cardigan.explore.views import Style, directions_of, mix_rows, pad_pictures, rows_sheet
    from cardigan.figures.grid import png, tile
    from cardigan.run import atomic
    from cardigan.run.snapshot import read_snapshot

    snapshot = read_snapshot(options.model)
    if windows:
        atomic.write_bytes(options.out, png(rows_sheet(_without(snapshot, windows, options))))
        return 0
    style, directions = Style(options.label or "", options.truncation, amounts), directions_of(snapshot) if amounts else None
    if corners is not None:
        sheet = tile(pad_pictures(snapshot, corners, place, options.grid, options.span, style, directions))
        told = f"{options.grid * options.grid} pictures"
    else:
        sheet = rows_sheet(mix_rows(snapshot, add, subtract, style, directions))
        told = f"{len(add) + len(subtract)} groups and their sum"
    atomic.write_bytes(options.out, png(sheet))
    print(f"{told} in {options.out}")
    return 0


def _without(snapshot: "Snapshot", windows: list[str], options: MixOptions) -> "list[Row]":
    """Return the pictures as they are, and below them without what the windows mark."""
    from cardigan.explore.forgetting import forgotten, parse_window, window_channels

    if options.directions or options.truncation != 1:
        raise CardiganError("--forget goes with --seeds and --label alone: leave --directions and --truncation out.")
    label = options.label or ""
    channels = window_channels(snapshot, [parse_window(window) for window in windows], label=label)
    seeds = parse_seeds(options.seeds, most=256)
    print(f"{len(channels)} of G's features are drawn there; {len(seeds)} pictures with and without them in {options.out}")
    return list(forgotten(snapshot, seeds, channels, label=label))


def parse_place(text: str) -> tuple[float, float]:
    """Return the two numbers of a place such as `0.3,0.7`, each 0 to 1."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*", text)
    place = (float(match[1]), float(match[2])) if match else (2.0, 2.0)
    if max(place) > 1:
        raise CardiganError(f"--at is {text!r}: expected two numbers from 0 to 1, across and down, such as 0.3,0.7.")
    return place
