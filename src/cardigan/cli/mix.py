"""`cardigan mix MODEL`: latent arithmetic, interpolation between four seeds, or ablation of features."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cardigan.cli.output_path import check_output_path
from cardigan.cli.parsing import parse
from cardigan.errors import CardiganError
from cardigan.latents.seeds import parse_direction_amounts, parse_points, parse_seeds

if TYPE_CHECKING:
    from cardigan.explore.views import ImageRow
    from cardigan.models.snapshot import Snapshot

SUFFIXES = {".png"}


@dataclass(frozen=True, kw_only=True)
class MixOptions:
    """Add and subtract average latents, as the DCGAN paper does; or interpolate four seeds; or ablate features."""

    model: Annotated[Path, tyro.conf.Positional]
    """A run directory, a checkpoint folder, a generator.safetensors, or a model on the hub, hf:user/name."""
    add: Annotated[list[str], tyro.conf.UseAppendAction] = field(default_factory=list)
    """A group of seeds, e.g. 1,2,3, whose average latent is added. May be repeated."""
    subtract: Annotated[list[str], tyro.conf.UseAppendAction] = field(default_factory=list)
    """A group of seeds whose average latent is subtracted. May be repeated."""
    corners: str | None = None
    """Interpolate instead: four seeds as the corners of a square: top left, top right, bottom left, bottom right."""
    position: str = "0.5,0.5"
    """Position in the square, across and down, each 0 to 1."""
    grid: int = 1
    """Number of positions across and down, centered on --position."""
    extent: float = 0.5
    """Fraction of the square's side that the grid covers, 0 to 1."""
    ablate_box: Annotated[list[str], tyro.conf.UseAppendAction] = field(default_factory=list)
    """Ablate instead: a seed and a box in its image (left, top, right, bottom), e.g. 3:10,5,20,18. May be repeated."""
    seeds: str = "0-9"
    """With --ablate-box: the seeds to generate, unchanged in the upper row and ablated in the lower row."""
    directions: str = ""
    """Principal directions to move along and how far, in standard deviations, e.g. 0:1.5,3:-2."""
    label: str | None = None
    """The class of all images, by name or number. Default: each seed's own class, mixed like the latents."""
    truncation: float = 1.0
    """1 samples as trained, 0 gives the average image."""
    out: Path = Path("mix.png")
    """NAME.png: one row per group with its average at the end, then the result and its neighborhood; or the grid."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace the file --out if it exists."""


def main(argv: list[str]) -> int:
    """Write the mixed images; return the exit code."""
    options = parse(MixOptions, argv, "cardigan mix")
    check_output_path(options.out, SUFFIXES, options.overwrite)
    add, subtract = (
        [parse_points(group, option) for group in groups]
        for groups, option in ((options.add, "--add"), (options.subtract, "--subtract"))
    )
    corners = None if options.corners is None else parse_points(options.corners, "--corners")
    boxes = list(options.ablate_box)
    if [bool(add), corners is not None, bool(boxes)].count(True) != 1 or (subtract and not add):
        raise CardiganError(
            "Expected exactly one of: groups of seeds (--add 1,2,3 --subtract 4,5,6), four --corners, "
            "or --ablate-box 3:10,5,20,18."
        )
    if corners is not None and len(corners) != 4:
        raise CardiganError(f"--corners has {len(corners)} seeds: expected four, such as 0,1,2,3.")
    position, amounts = parse_position(options.position), parse_direction_amounts(options.directions)

    from cardigan.explore.views import (
        SamplingOptions,
        arithmetic_rows,
        default_directions,
        interpolation_images,
        stack_rows,
    )
    from cardigan.figures.grid import make_grid, png_bytes
    from cardigan.files import atomic
    from cardigan.models.snapshot import read_snapshot

    snapshot = read_snapshot(options.model)
    if boxes:
        atomic.write_bytes(options.out, png_bytes(stack_rows(_ablation_rows(snapshot, boxes, options))))
        return 0
    sampling_options, directions = (
        SamplingOptions(options.label or "", options.truncation, amounts),
        default_directions(snapshot) if amounts else None,
    )
    if corners is not None:
        sheet = make_grid(
            interpolation_images(
                snapshot, corners, position, options.grid, options.extent, sampling_options, directions
            )
        )
        description = f"{options.grid * options.grid} images"
    else:
        sheet = stack_rows(arithmetic_rows(snapshot, add, subtract, sampling_options, directions))
        description = f"{len(add) + len(subtract)} groups and their sum"
    atomic.write_bytes(options.out, png_bytes(sheet))
    print(f"{description} in {options.out}")
    return 0


def _ablation_rows(snapshot: "Snapshot", boxes: list[str], options: MixOptions) -> "list[ImageRow]":
    """Return the images unchanged, and a second row without the features that the boxes mark."""
    from cardigan.explore.ablation import box_channels, parse_box, without_channels

    if options.directions or options.truncation != 1:
        raise CardiganError(
            "--ablate-box works with --seeds and --label only: leave --directions and --truncation out."
        )
    label = options.label or ""
    channels = box_channels(snapshot, [parse_box(box) for box in boxes], label=label)
    seeds = parse_seeds(options.seeds, max_count=256)
    print(f"{len(channels)} features of G are active there; {len(seeds)} images with and without them in {options.out}")
    return list(without_channels(snapshot, seeds, channels, label=label))


def parse_position(text: str) -> tuple[float, float]:
    """Return the two numbers of a position such as `0.3,0.7`, each 0 to 1."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*", text)
    position = (float(match[1]), float(match[2])) if match else (2.0, 2.0)
    if max(position) > 1:
        raise CardiganError(
            f"--position is {text!r}: expected two numbers from 0 to 1, across and down, such as 0.3,0.7."
        )
    return position
