"""`cardigan walk MODEL`: a film of the way from one picture to another, and on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cardigan.cli.output_path import check_output_path
from cardigan.cli.parsing import parse
from cardigan.latents.points import parse_direction_amounts, parse_points

SUFFIXES = {".webp", ".gif", ".mp4"}


@dataclass(frozen=True, kw_only=True)
class WalkOptions:
    """Film a walk through a generator's latents, from seed to seed."""

    model: Annotated[Path, tyro.conf.Positional]
    """A run directory, a checkpoint folder, a generator.safetensors, or a model of the hub, hf:user/name."""
    seeds: str = "0-3"
    """The stops, two or more, e.g. 3,7,1 or 0-3; z:... as `cardigan invert` prints it is one too."""
    frames: int = 96
    """How many pictures the film has."""
    fps: float = 24.0
    """How many of them are shown in a second."""
    path: Literal["auto", "linear", "spherical"] = "auto"
    """Straight lines or arcs; auto is arcs for normal latents, lines for uniform ones."""
    loop: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Walk on from the last stop to the first, so that the film can repeat without a jump."""
    label: str | None = None
    """The class of all pictures, by its name or number; by default that of the first seed."""
    columns: int = 1
    """So many walks side by side, each beginning one seed further along."""
    truncation: float = 1.0
    """From 1, as trained, down to 0, the average picture."""
    directions: str = ""
    """Principal directions to go along, and how far in their spreads, e.g. 0:1.5,3:-2."""
    out: Path = Path("walk.webp")
    """NAME.webp, NAME.gif, or NAME.mp4 (pip install 'cardigan[video]')."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace the file --out if it is there."""


def main(argv: list[str]) -> int:
    """Film as the words say; return the exit code."""
    options = parse(WalkOptions, argv, "cardigan walk")
    check_output_path(options.out, SUFFIXES, options.overwrite)
    seeds, amounts = parse_points(options.seeds), parse_direction_amounts(options.directions)

    from cardigan.explore.views import SamplingOptions, default_directions, parallel_walk_images
    from cardigan.figures.animation import encode_animation
    from cardigan.files import atomic
    from cardigan.models.snapshot import read_snapshot

    spherical = None if options.path == "auto" else options.path == "spherical"
    sampling_options = SamplingOptions(options.label or "", options.truncation, amounts)
    snapshot = read_snapshot(options.model)
    directions = default_directions(snapshot) if amounts else None
    frames = parallel_walk_images(
        snapshot, seeds, options.columns, options.frames, spherical, options.loop, sampling_options, directions
    )
    atomic.write_bytes(options.out, encode_animation(frames, options.fps, options.out.suffix[1:]))
    print(f"{len(frames)} frames through {len(seeds)} seeds, {len(frames) / options.fps:.1f} s, in {options.out}")
    return 0
