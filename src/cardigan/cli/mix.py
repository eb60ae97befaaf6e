"""`cardigan mix MODEL`: latent arithmetic, interpolation of four seeds, ablated features, or a blend of two models."""

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
FILM_SUFFIXES, MODEL_SUFFIX = {".webp", ".gif", ".mp4"}, ".safetensors"
"""What a blend of two models may also be written to."""
FILM_FRAMES, FILM_FPS = 72, 24.0


@dataclass(frozen=True, kw_only=True)
class MixOptions:
    """Add and subtract average latents, as the DCGAN paper does; or interpolate four seeds; or ablate features; or
    blend two models."""

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
    blend: Path | None = None
    """Blend instead: a second model, such as one that was trained --from this one. Its weights are mixed in."""
    weights: str = "0,0.25,0.5,0.75,1"
    """With --blend: shares of the second model, one column each. A film goes through all; a model file takes one."""
    stages: str = ""
    """With --blend: a factor of the share for each stage of the generator, coarsest first, e.g. 1,1,0,0,0."""
    seeds: str = "0-9"
    """With --ablate-box or --blend: the seeds to generate."""
    directions: str = ""
    """Principal directions to move along and how far, in standard deviations, e.g. 0:1.5,3:-2."""
    label: str | None = None
    """The class of all images, by name or number. Default: each seed's own class, mixed like the latents."""
    truncation: float = 1.0
    """1 samples as trained, 0 gives the average image."""
    out: Path = Path("mix.png")
    """NAME.png: one row per group with its average at the end, then the result and its neighborhood; or the grid.
    With --blend also NAME.webp, .gif or .mp4 (a film), or NAME.safetensors (the blended generator)."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace the file --out if it exists."""


def main(argv: list[str]) -> int:
    """Write the mixed images; return the exit code."""
    options = parse(MixOptions, argv, "cardigan mix")
    suffixes = SUFFIXES if options.blend is None else SUFFIXES | FILM_SUFFIXES | {MODEL_SUFFIX}
    check_output_path(options.out, suffixes, options.overwrite)
    add, subtract = (
        [parse_points(group, option) for group in groups]
        for groups, option in ((options.add, "--add"), (options.subtract, "--subtract"))
    )
    corners = None if options.corners is None else parse_points(options.corners, "--corners")
    boxes = list(options.ablate_box)
    if [bool(add), corners is not None, bool(boxes), options.blend is not None].count(True) != 1 or (
        subtract and not add
    ):
        raise CardiganError(
            "Expected exactly one of: groups of seeds (--add 1,2,3 --subtract 4,5,6), four --corners, "
            "--ablate-box 3:10,5,20,18, or --blend MODEL."
        )
    if corners is not None and len(corners) != 4:
        raise CardiganError(f"--corners has {len(corners)} seeds: expected four, such as 0,1,2,3.")
    if options.blend is None and (options.stages or options.weights != MixOptions.weights):
        raise CardiganError("--weights and --stages belong to --blend MODEL: give it, or leave them out.")
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
    if options.blend is not None:
        print(_write_blend(snapshot, read_snapshot(options.blend), options))
        return 0
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


def _name_with_hash(model: Path) -> str:
    """Return the name of a model, and the beginning of its file's SHA-256 if it lies on this machine."""
    from cardigan.files.sha256 import file_sha256
    from cardigan.models.snapshot import weights_file

    file = weights_file(model)
    return f"{model.name} (SHA-256 {file_sha256(file)[:12]})" if file.exists() else model.name


def _write_blend(first: "Snapshot", second: "Snapshot", options: MixOptions) -> str:
    """Write a sheet, a film or a model of blends, and return the sentence that says so."""
    import numpy as np
    import torch

    from cardigan.experiment.licenses import license_of
    from cardigan.explore.blend import blend
    from cardigan.explore.views import labels_for, stack_rows
    from cardigan.exports.anonymize import anonymized
    from cardigan.exports.card import model_card
    from cardigan.figures.animation import encode_animation
    from cardigan.figures.grid import make_grid, png_bytes
    from cardigan.files import atomic
    from cardigan.latents.interpolation import point_latents
    from cardigan.latents.sampling import truncate
    from cardigan.models.sampling import generate_pixels
    from cardigan.models.snapshot import write_snapshot

    if options.directions:
        raise CardiganError("--directions does not work with --blend: leave it out.")
    shares = parse_numbers(options.weights, "--weights")
    stages = parse_numbers(options.stages, "--stages") if options.stages else []
    if options.out.suffix == MODEL_SUFFIX:
        if len(shares) != 1:
            raise CardiganError(f"--weights is {options.weights}: expected one number for {options.out}, as in 0.5.")
        assert options.blend is not None
        models = (options.model, options.blend)
        names = (_name_with_hash(models[0]), _name_with_hash(models[1]))
        mixed = anonymized(blend(first, second, shares[0], stages, names))
        licenses = [f"{path.name}: license {license_of(path) or 'unknown'}." for path in models]
        card = model_card(mixed, None, {options.out.name: ""}, export_lines=[f"- {line}" for line in licenses])
        write_snapshot(options.out, mixed, card=card)
        return f"the blend, {shares[0]:g} of {options.blend}, in {options.out}"
    seeds = parse_seeds(options.seeds, max_count=256)

    def images(share: float) -> "ImageRow":
        snapshot = blend(first, second, share, stages)
        z = truncate(point_latents(snapshot.config, seeds), options.truncation)
        return generate_pixels(snapshot.generator, z, labels_for(snapshot, seeds, options.label or ""))

    if options.out.suffix in FILM_SUFFIXES:
        steps = torch.linspace(0, len(shares) - 1, FILM_FRAMES).tolist() if len(shares) > 1 else [0.0]
        path = np.interp(steps, range(len(shares)), shares).tolist()
        frames = torch.stack([make_grid(images(share)) for share in path])
        atomic.write_bytes(options.out, encode_animation(frames, FILM_FPS, options.out.suffix[1:]))
        return f"{len(frames)} frames from {shares[0]:g} to {shares[-1]:g} of {options.blend}, in {options.out}"
    rows = torch.stack([images(share) for share in shares], dim=1)
    atomic.write_bytes(options.out, png_bytes(stack_rows(list(rows))))
    return f"{len(seeds)} seeds, each with {len(shares)} blends, in {options.out}"


def parse_numbers(text: str, option: str) -> list[float]:
    """Return numbers between 0 and 1 from text like 0,0.5,1. Raises CardiganError for anything else."""
    try:
        numbers = [float(part) for part in text.split(",") if part]
        if all(0 <= number <= 1 for number in numbers) and numbers:
            return numbers
    except ValueError:
        pass
    raise CardiganError(f"{option} is {text!r}: expected numbers from 0 to 1, as in 0,0.5,1.")


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
