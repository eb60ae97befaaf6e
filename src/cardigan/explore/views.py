"""What commands and the studio's latent room show alike: pictures of seeds, of places between them, of walks, sums and checkpoints.

Tensors in, tensors out; does not load models and writes no file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import UInt8
from torch import Tensor

from cardigan.errors import CardiganError
from cardigan.explore.arithmetic import mixed, nearby
from cardigan.explore.directions import Directions, moved, principal_directions
from cardigan.explore.paths import around, latents_of, walk
from cardigan.explore.points import Point, label_of
from cardigan.figures.grid import Sheet
from cardigan.figures.layout import GAP
from cardigan.latents import sample_labels, truncated
from cardigan.run.snapshot import Snapshot, check_labels, class_number, draw_pixels
from cardigan.shapes import Labels, Latents, Pixels

Row = UInt8[Tensor, "_ channel height width"]
"""Pictures side by side; rows of one sheet may differ in number."""

NUM_DIRECTIONS = 8
"""Principal directions that are offered."""
NUM_NEARBY = 9
"""Pictures of a result: itself, and what lies around it (arXiv:1511.06434, figure 7)."""

FEW = 16
"""A pad's pictures are drawn this many at a time: it has to follow a hand."""


@dataclass(frozen=True)
class Style:
    """What all pictures of a view have in common."""

    label: str = ""
    """A class by name or number; nothing lets the seed choose."""
    truncation: float = 1.0
    amounts: dict[int, float] = field(default_factory=dict)
    """How far to go along principal directions, in their spreads."""


def labels_for(snapshot: Snapshot, points: Sequence[Point], label: str) -> Labels | None:
    """Return the class of each picture: the one asked for, else the one each seed draws or each z was found with (the first where that is not
    known); None for a generator without classes.

    Raises CardiganError for a class where there are none, or that is not among them.
    """
    classes = snapshot.spec.classes
    if label:
        labels = torch.full((len(points),), class_number(label, snapshot.spec), dtype=torch.int64)
    elif classes:
        own = [sample_labels([(each, 0)], classes) if isinstance(each, int) else torch.tensor([label_of(each) or 0]) for each in points]
        labels = torch.cat(own)
    else:
        return None
    check_labels(labels, len(points), classes)
    return labels


def styled(z: Latents, style: Style, directions: Directions | None) -> Latents:
    """Return z moved along the directions, then truncated."""
    if style.amounts and directions is not None:
        z = moved(z, directions, style.amounts)
    return truncated(z, style.truncation)


def directions_of(snapshot: Snapshot) -> Directions:
    """Return the principal directions that `Style.amounts` counts."""
    return principal_directions(snapshot, min(NUM_DIRECTIONS, snapshot.config.latent.size))


def seeds_pictures(snapshot: Snapshot, seeds: Sequence[Point], style: Style, directions: Directions | None) -> Pixels:
    """Return one picture a seed, as `cardigan sample --seeds` draws them."""
    z = styled(latents_of(snapshot.config, seeds), style, directions)
    return draw_pixels(snapshot.generator, z, labels_for(snapshot, seeds, style.label))


def pad_pictures(
    snapshot: Snapshot, corners: Sequence[Point], place: tuple[float, float], grid: int, span: float, style: Style, directions: Directions | None
) -> Pixels:
    """Return the pictures at and around a place between four seeds, grid x grid of them; without a class all have the first corner's."""
    z = styled(around(snapshot.config, latents_of(snapshot.config, corners), *place, grid, span), style, directions)
    return draw_pixels(snapshot.generator, z, labels_for(snapshot, [corners[0]] * len(z), style.label), chunk=FEW)


def walk_pictures(
    snapshot: Snapshot, seeds: Sequence[Point], frames: int, spherical: bool | None, loop: bool, style: Style, directions: Directions | None
) -> Pixels:
    """Return the frames of a walk through the seeds; without a class all have the first seed's."""
    if len(seeds) < 2:
        raise CardiganError(f"{len(seeds)} seed is no walk: give at least two.")
    z = walk(snapshot.config, latents_of(snapshot.config, seeds), frames, spherical, loop)
    return draw_pixels(snapshot.generator, styled(z, style, directions), labels_for(snapshot, [seeds[0]] * len(z), style.label))


def walks_pictures(
    snapshot: Snapshot,
    seeds: Sequence[Point],
    columns: int,
    frames: int,
    spherical: bool | None,
    loop: bool,
    style: Style,
    directions: Directions | None,
) -> Pixels:
    """Return the frames of several walks side by side, each beginning one seed further along than the one on its left; one alone has no gaps."""
    if not 1 <= columns <= len(seeds):
        raise CardiganError(f"{columns} walks side by side through {len(seeds)} seeds: expected 1..{len(seeds)}, each begins at a seed of its own.")
    turned = [[*seeds[start:], *seeds[:start]] for start in range(columns)]
    walks = [walk_pictures(snapshot, each, frames, spherical, loop, style, directions) for each in turned]
    return walks[0] if columns == 1 else torch.stack([rows_sheet([torch.stack(pictures)]) for pictures in zip(*walks, strict=True)])


def mix_rows(
    snapshot: Snapshot, add: Sequence[Sequence[Point]], subtract: Sequence[Sequence[Point]], style: Style, directions: Directions | None
) -> list[Row]:
    """Return a row for each group of seeds, its pictures and then its average, and last the sum of the averages less those subtracted, nine times:
    itself, and with noise (arXiv:1511.06434, section 6.3.2). Without a class all have the first seed's, since z is what is added.
    """
    groups = [[latents_of(snapshot.config, seeds) for seeds in part] for part in (add, subtract)]
    result = nearby(mixed(*groups), NUM_NEARBY)
    first = add[0][0]
    rows = []
    for z in [*(torch.cat([group, group.mean(0, keepdim=True)]) for group in [*groups[0], *groups[1]]), result]:
        rows.append(draw_pixels(snapshot.generator, styled(z, style, directions), labels_for(snapshot, [first] * len(z), style.label)))
    return rows


def rows_sheet(rows: Sequence[Row]) -> Sheet:
    """Return batches below each other, each from left to right; where one is shorter the sheet stays black."""
    count, (_, channels, height, width) = max(len(row) for row in rows), rows[0].shape
    sheet = rows[0].new_zeros(channels, len(rows) * (height + GAP) - GAP, count * (width + GAP) - GAP)
    for down, row in enumerate(rows):
        for across, picture in enumerate(row):
            top, left = down * (height + GAP), across * (width + GAP)
            sheet[:, top : top + height, left : left + width] = picture
    return sheet
