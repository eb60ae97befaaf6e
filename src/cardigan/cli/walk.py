"""`cardigan walk MODEL`: an animation that interpolates between images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cardigan.cli.output_path import check_output_path
from cardigan.cli.parsing import parse
from cardigan.latents.seeds import parse_direction_amounts, parse_points

SUFFIXES = {".webp", ".gif", ".mp4"}


@dataclass(frozen=True, kw_only=True)
class WalkOptions:
    """Animate a walk through a generator's latent space, from seed to seed."""

    model: Annotated[Path, tyro.conf.Positional]
    """A run directory, a checkpoint folder, a generator.safetensors, or a model on the hub, hf:user/name."""
    seeds: str = "0-3"
    """Two or more seeds to pass through, e.g. 3,7,1 or 0-3; also latents z:... as `cardigan invert` prints them."""
    frames: int = 96
    """Number of frames."""
    fps: float = 24.0
    """Frames per second."""
    path: Literal["auto", "linear", "spherical"] = "auto"
    """Interpolation. auto is spherical for normal latents and linear for uniform ones."""
    loop: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Return from the last seed to the first, so that the animation repeats smoothly."""
    label: str | None = None
    """The class of all images, by name or number. Default: each seed's own class, mixed in between."""
    columns: int = 1
    """Number of walks side by side; each starts one seed later."""
    truncation: float = 1.0
    """1 samples as trained, 0 gives the average image."""
    directions: str = ""
    """Principal directions to move along and how far, in standard deviations, e.g. 0:1.5,3:-2."""
    out: Path = Path("walk.webp")
    """NAME.webp, NAME.gif, or NAME.mp4 (pip install 'cardigan[video]')."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace the file --out if it exists."""


def main(argv: list[str]) -> int:
    """Write the animation; return the exit code."""
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
