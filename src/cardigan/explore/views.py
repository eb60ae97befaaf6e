"""Views shared by the commands and the studio: images of seeds, interpolations, walks and latent arithmetic.

Tensors in, tensors out. Loads no model and writes no file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import UInt8
from torch import Tensor

from cardigan.errors import CardiganError
from cardigan.explore.arithmetic import Group, latent_arithmetic, noisy_copies
from cardigan.explore.directions import Directions, move_along_directions, principal_directions
from cardigan.figures.grid import GridImage
from cardigan.figures.layout import GAP
from cardigan.latents.interpolation import (
    PointWeights,
    corner_weights,
    grid_positions,
    interpolate_corners,
    point_latents,
    walk_latents,
    walk_weights,
)
from cardigan.latents.points import Point, point_label
from cardigan.latents.sampling import sample_labels, truncate
from cardigan.models.sampling import class_index, generate_pixels, validate_labels
from cardigan.models.snapshot import Snapshot
from cardigan.nets.conditioning import one_hot_labels
from cardigan.shapes import ClassWeights, Labels, Latents, Pixels

ImageRow = UInt8[Tensor, "_ channel height width"]
"""Images side by side. Rows of one sheet may differ in length."""

NUM_DIRECTIONS = 8
"""Number of principal directions."""
NUM_NOISY_COPIES = 9
"""Images per arithmetic result: itself and noisy copies (arXiv:1511.06434, figure 7)."""

INTERACTIVE_CHUNK = 16
"""Batch size of interactive grids; a small one keeps the latency low."""


@dataclass(frozen=True)
class SamplingOptions:
    """Options shared by all images of a view."""

    label: str = ""
    """A class by name or number. Default: each seed's own class, mixed like the latents between seeds."""
    truncation: float = 1.0
    direction_amounts: dict[int, float] = field(default_factory=dict)
    """Offset along each numbered principal direction, in standard deviations."""


def labels_for(snapshot: Snapshot, points: Sequence[Point], label: str) -> Labels | None:
    """Return the class of each image, or None for an unconditional generator.

    It is `label` if given; else the class a seed samples, or the one stored with a latent (class 0 if none is stored).
    Raises CardiganError for an unknown class, and for any class of an unconditional generator.
    """
    classes = snapshot.spec.num_classes
    if label:
        labels = torch.full((len(points),), class_index(label, snapshot.spec), dtype=torch.int64)
    elif classes:
        point_labels = [
            sample_labels([(point, 0)], classes, snapshot.spec.class_counts)
            if isinstance(point, int)
            else torch.tensor([point_label(point) or 0])
            for point in points
        ]
        labels = torch.cat(point_labels)
    else:
        return None
    validate_labels(labels, len(points), classes)
    return labels


def mixed_classes(
    snapshot: Snapshot, points: Sequence[Point], weights: PointWeights, label: str
) -> Labels | ClassWeights | None:
    """Return the classes of latents mixed from points: `label` if given, else the points' classes by their weights.

    Returns None for an unconditional generator. Raises errors like `labels_for`.
    """
    if label or not snapshot.spec.num_classes:
        return labels_for(snapshot, [points[0]] * len(weights), label)
    return (weights.double() @ _class_weights(snapshot, points)).float()


def _class_weights(snapshot: Snapshot, points: Sequence[Point]) -> ClassWeights:
    return one_hot_labels(labels_for(snapshot, points, ""), snapshot.spec.num_classes).double()


def apply_options(z: Latents, options: SamplingOptions, directions: Directions | None) -> Latents:
    """Return z moved along the directions, then truncated."""
    if options.direction_amounts and directions is not None:
        z = move_along_directions(z, directions, options.direction_amounts)
    return truncate(z, options.truncation)


def default_directions(snapshot: Snapshot) -> Directions:
    """Return the principal directions that `SamplingOptions.direction_amounts` indexes."""
    return principal_directions(snapshot, min(NUM_DIRECTIONS, snapshot.config.latent.size))


def seed_images(
    snapshot: Snapshot, seeds: Sequence[Point], options: SamplingOptions, directions: Directions | None
) -> Pixels:
    """Return one image per seed, the same as `cardigan sample --seeds`."""
    z = apply_options(point_latents(snapshot.config, seeds), options, directions)
    return generate_pixels(snapshot.generator, z, labels_for(snapshot, seeds, options.label))


def interpolation_inputs(
    snapshot: Snapshot,
    corners: Sequence[Point],
    positions: Sequence[tuple[float, float]],
    options: SamplingOptions,
    directions: Directions | None,
) -> tuple[Latents, Labels | ClassWeights | None]:
    """Return what the generator gets at each position between four corners: the latents, and the classes if any."""
    corner_latents = point_latents(snapshot.config, corners)
    z = torch.cat([interpolate_corners(snapshot.config, corner_latents, *each) for each in positions])
    classes = mixed_classes(snapshot, corners, corner_weights(positions), options.label)
    return apply_options(z, options, directions), classes


def interpolation_images(
    snapshot: Snapshot,
    corners: Sequence[Point],
    position: tuple[float, float],
    grid: int,
    extent: float,
    options: SamplingOptions,
    directions: Directions | None,
) -> Pixels:
    """Return grid x grid images at and around a position between four corners.

    Without a label, the corners' classes are mixed like their latents. At a corner, the image equals `seed_images`.
    """
    positions = grid_positions(*position, grid, extent)
    z, classes = interpolation_inputs(snapshot, corners, positions, options, directions)
    pixels = generate_pixels(snapshot.generator, z, classes, batch_size=INTERACTIVE_CHUNK)
    at_corner = corner_weights(positions).amax(dim=1) == 1
    if at_corner.any():  # another batch size may round differently
        corner_classes = None if classes is None else classes[at_corner]
        pixels[at_corner] = generate_pixels(snapshot.generator, z[at_corner], corner_classes)
    return pixels


def walk_images(
    snapshot: Snapshot,
    seeds: Sequence[Point],
    frames: int,
    spherical: bool | None,
    loop: bool,
    options: SamplingOptions,
    directions: Directions | None,
) -> Pixels:
    """Return the frames of a latent walk through the seeds. Without a label, the seeds' classes are mixed too."""
    if len(seeds) < 2:
        raise CardiganError(f"A walk through {len(seeds)} seed is impossible: give at least two.")
    z = walk_latents(snapshot.config, point_latents(snapshot.config, seeds), frames, spherical, loop)
    return generate_pixels(
        snapshot.generator,
        apply_options(z, options, directions),
        mixed_classes(snapshot, seeds, walk_weights(len(seeds), frames, loop), options.label),
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
    """Return the frames of several walks side by side. Each starts one seed later than the walk on its left."""
    if not 1 <= columns <= len(seeds):
        raise CardiganError(
            f"{columns} walks side by side through {len(seeds)} seeds: expected 1..{len(seeds)}, one first seed each."
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
    """Return a row for each group of seeds (its images, then the image of its mean z), and a last row with the result.

    The last row shows the sum of the added means minus the subtracted means, then eight noisy copies (arXiv:1511.06434,
    section 6.3.2). Without a label, each seed has its own class, and class weights are added like the latents.
    """
    groups = [[point_latents(snapshot.config, seeds) for seeds in part] for part in (add, subtract)]
    points = [point for part in (add, subtract) for seeds in part for point in seeds]
    weights = iter(torch.eye(len(points)).split([len(seeds) for part in (add, subtract) for seeds in part]))
    weight_groups = [[next(weights) for _ in part] for part in (add, subtract)]
    result = noisy_copies(latent_arithmetic(*groups), NUM_NOISY_COPIES)
    result_weights = latent_arithmetic(*weight_groups).expand(NUM_NOISY_COPIES, -1)
    rows = [
        *zip(map(_with_mean, groups[0] + groups[1]), map(_with_mean, weight_groups[0] + weight_groups[1]), strict=True),
        (result, result_weights),
    ]
    return [
        generate_pixels(
            snapshot.generator,
            apply_options(z, options, directions),
            mixed_classes(snapshot, points, row_weights, options.label),
        )
        for z, row_weights in rows
    ]


def _with_mean(rows: Group) -> Group:
    return torch.cat([rows, rows.mean(0, keepdim=True)])


def stack_rows(rows: Sequence[ImageRow]) -> GridImage:
    """Return one sheet with a batch per row, from left to right. Missing images are black."""
    count, (_, channels, height, width) = max(len(row) for row in rows), rows[0].shape
    sheet = rows[0].new_zeros(channels, len(rows) * (height + GAP) - GAP, count * (width + GAP) - GAP)
    for row_index, row in enumerate(rows):
        for column_index, image in enumerate(row):
            top, left = row_index * (height + GAP), column_index * (width + GAP)
            sheet[:, top : top + height, left : left + width] = image
    return sheet
