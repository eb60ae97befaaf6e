"""What commands and the studio's latent room show alike: pictures of seeds, of places between them, of walks, sums and checkpoints.

Tensors in, tensors out; does not load models and writes no file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import UInt8
from torch import Tensor

from cardigan.errors import CardiganError
from cardigan.explore.arithmetic import latent_arithmetic, noisy_copies
from cardigan.explore.directions import Directions, move_along_directions, principal_directions
from cardigan.figures.grid import GridImage
from cardigan.figures.layout import GAP
from cardigan.latents.interpolation import interpolation_grid_latents, point_latents, walk_latents
from cardigan.latents.points import Point, point_label
from cardigan.latents.sampling import sample_labels, truncate
from cardigan.models.sampling import class_index, generate_pixels, validate_labels
from cardigan.models.snapshot import Snapshot
from cardigan.shapes import Labels, Latents, Pixels

ImageRow = UInt8[Tensor, "_ channel height width"]
"""Pictures side by side; rows of one sheet may differ in number."""

NUM_DIRECTIONS = 8
"""Principal directions that are offered."""
NUM_NOISY_COPIES = 9
"""Pictures of a result: itself, and what lies around it (arXiv:1511.06434, figure 7)."""

INTERACTIVE_CHUNK = 16
"""A pad's pictures are drawn this many at a time: it has to follow a hand."""


@dataclass(frozen=True)
class SamplingOptions:
    """What all pictures of a view have in common."""

    label: str = ""
    """A class by name or number; nothing lets the seed choose."""
    truncation: float = 1.0
    direction_amounts: dict[int, float] = field(default_factory=dict)
    """How far to go along principal directions, in their spreads."""


def labels_for(snapshot: Snapshot, points: Sequence[Point], label: str) -> Labels | None:
    """Return the class of each picture: the one asked for, else the one each seed draws or each z was found with (the first where that is not
    known); None for a generator without classes.

    Raises CardiganError for a class where there are none, or that is not among them.
    """
    classes = snapshot.spec.num_classes
    if label:
        labels = torch.full((len(points),), class_index(label, snapshot.spec), dtype=torch.int64)
    elif classes:
        point_labels = [
            sample_labels([(point, 0)], classes) if isinstance(point, int) else torch.tensor([point_label(point) or 0])
            for point in points
        ]
        labels = torch.cat(point_labels)
    else:
        return None
    validate_labels(labels, len(points), classes)
    return labels


def apply_options(z: Latents, options: SamplingOptions, directions: Directions | None) -> Latents:
    """Return z moved along the directions, then truncated."""
    if options.direction_amounts and directions is not None:
        z = move_along_directions(z, directions, options.direction_amounts)
    return truncate(z, options.truncation)


def default_directions(snapshot: Snapshot) -> Directions:
    """Return the principal directions that `SamplingOptions.direction_amounts` counts."""
    return principal_directions(snapshot, min(NUM_DIRECTIONS, snapshot.config.latent.size))


def seed_images(
    snapshot: Snapshot, seeds: Sequence[Point], options: SamplingOptions, directions: Directions | None
) -> Pixels:
    """Return one picture a seed, as `cardigan sample --seeds` draws them."""
    z = apply_options(point_latents(snapshot.config, seeds), options, directions)
    return generate_pixels(snapshot.generator, z, labels_for(snapshot, seeds, options.label))


def interpolation_images(
    snapshot: Snapshot,
    corners: Sequence[Point],
    position: tuple[float, float],
    grid: int,
    extent: float,
    options: SamplingOptions,
    directions: Directions | None,
) -> Pixels:
    """Return the pictures at and around a place between four seeds, grid x grid of them; without a class all have the first corner's."""
    z = apply_options(
        interpolation_grid_latents(snapshot.config, point_latents(snapshot.config, corners), *position, grid, extent),
        options,
        directions,
    )
    return generate_pixels(
        snapshot.generator, z, labels_for(snapshot, [corners[0]] * len(z), options.label), batch_size=INTERACTIVE_CHUNK
    )


def walk_images(
    snapshot: Snapshot,
    seeds: Sequence[Point],
    frames: int,
    spherical: bool | None,
    loop: bool,
    options: SamplingOptions,
    directions: Directions | None,
) -> Pixels:
    """Return the frames of a walk through the seeds; without a class all have the first seed's."""
    if len(seeds) < 2:
        raise CardiganError(f"{len(seeds)} seed is no walk: give at least two.")
    z = walk_latents(snapshot.config, point_latents(snapshot.config, seeds), frames, spherical, loop)
    return generate_pixels(
        snapshot.generator,
        apply_options(z, options, directions),
        labels_for(snapshot, [seeds[0]] * len(z), options.label),
    )


def parallel_walk_images(
    snapshot: Snapshot,
    seeds: Sequence[Point],
    columns: int,
    frames: int,
    spherical: bool | None,
    loop: bool,
    options: SamplingOptions,
    directions: Directions | None,
) -> Pixels:
    """Return the frames of several walks side by side, each beginning one seed further along than the one on its left; one alone has no gaps."""
    if not 1 <= columns <= len(seeds):
        raise CardiganError(
            f"{columns} walks side by side through {len(seeds)} seeds: expected 1..{len(seeds)}, each begins at a seed of its own."
        )
    rotated_seeds = [[*seeds[start:], *seeds[:start]] for start in range(columns)]
    walks = [
        walk_images(snapshot, walk_seeds, frames, spherical, loop, options, directions) for walk_seeds in rotated_seeds
    ]
    return (
        walks[0]
        if columns == 1
        else torch.stack([stack_rows([torch.stack(frame_images)]) for frame_images in zip(*walks, strict=True)])
    )


def arithmetic_rows(
    snapshot: Snapshot,
    add: Sequence[Sequence[Point]],
    subtract: Sequence[Sequence[Point]],
    options: SamplingOptions,
    directions: Directions | None,
) -> list[ImageRow]:
    """Return a row for each group of seeds, its pictures and then its average, and last the sum of the averages less those subtracted, nine times:
    itself, and with noise (arXiv:1511.06434, section 6.3.2). Without a class all have the first seed's, since z is what is added.
    """
    groups = [[point_latents(snapshot.config, seeds) for seeds in part] for part in (add, subtract)]
    result = noisy_copies(latent_arithmetic(*groups), NUM_NOISY_COPIES)
    first_point = add[0][0]
    rows = []
    for z in [*(torch.cat([group, group.mean(0, keepdim=True)]) for group in [*groups[0], *groups[1]]), result]:
        rows.append(
            generate_pixels(
                snapshot.generator,
                apply_options(z, options, directions),
                labels_for(snapshot, [first_point] * len(z), options.label),
            )
        )
    return rows


def stack_rows(rows: Sequence[ImageRow]) -> GridImage:
    """Return batches below each other, each from left to right; where one is shorter the sheet stays black."""
    count, (_, channels, height, width) = max(len(row) for row in rows), rows[0].shape
    sheet = rows[0].new_zeros(channels, len(rows) * (height + GAP) - GAP, count * (width + GAP) - GAP)
    for row_index, row in enumerate(rows):
        for column_index, image in enumerate(row):
            top, left = row_index * (height + GAP), column_index * (width + GAP)
            sheet[:, top : top + height, left : left + width] = image
    return sheet
