"""Differentiable augmentation: what keeps a discriminator that is shown few pictures from knowing them by heart.

Pure functions of pictures and uniform numbers: does not know where those were drawn, nor who looks at the result. Nothing waits for the
device and no shape depends on data, so that all of it can be captured in a CUDA graph.

DiffAugment (arXiv:2006.10738, section 3) is `colour`, `translation` and `cutout`, at p = 1. ADA (arXiv:2006.06676, appendix B) is the other
twelve, its sets "pixel blitting", "geometry" and "colour", at a p that `next_probability` steers. Unlike the paper's, this warp samples
bilinearly and without its wavelet filters, so that a picture made smaller may alias, and pictures need not be square.
"""

import math
from functools import reduce
from itertools import accumulate, product
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.autograd import Function

from cardigan.errors import unknown
from cardigan.hardware.metal import is_metal
from cardigan.shapes import Images, Scalar

OPERATIONS = {
    "flip": 2,
    "quarter-turn": 2,
    "shift": 3,
    "scale": 2,
    "rotate": 4,
    "stretch": 2,
    "drift": 3,
    "brightness": 2,
    "contrast": 2,
    "invert": 2,
    "hue": 2,
    "saturation": 2,
    "colour": 4,
    "translation": 3,
    "cutout": 3,
}
"""How many uniform numbers each operation reads: the first says whether it is applied, the others how.

They are applied in this order, save that `rotate` comes before and after `stretch`. Each has its columns by its place in this table, whichever
others are in the pipeline.
"""

ADA = tuple(OPERATIONS)[:12]
DIFF_AUGMENT = tuple(OPERATIONS)[12:]

Draws: TypeAlias = Float[Tensor, "batch draws"]
"""One operation's columns of the uniform numbers."""

Parameters: TypeAlias = Float[Tensor, " batch"]
Part: TypeAlias = Parameters | float
Row: TypeAlias = tuple[Part, Part, Part]

Placements: TypeAlias = Float[Tensor, "batch 3 3"]
"""Where a pixel of the new picture comes from: (x, y, 1), in pixels from the centre, to a place in the old one."""

Tints: TypeAlias = Float[Tensor, "batch 4 4"]
"""What becomes of a colour (red, green, blue, 1)."""

Neighbours: TypeAlias = Int64[Tensor, "batch neighbour pixel"]
"""The old pixels that a new one is a weighted sum of, as positions in a row of all of them."""

Weights: TypeAlias = Float[Tensor, "batch neighbour pixel"]
Values: TypeAlias = Float[Tensor, "batch channel row"]


def numbers_needed(pipeline: tuple[str, ...]) -> int:
    """Return how many uniform numbers `augment` is given for each picture: those of the whole table, or none for an empty pipeline.

    Raises CardiganError for a name that is not in the table.
    """
    for name in pipeline:
        if name not in OPERATIONS:
            raise unknown("augmentation", name, OPERATIONS)
    return sum(OPERATIONS.values()) if pipeline else 0


def augment(images: Images, pipeline: tuple[str, ...], numbers: Float[Tensor, "batch count"], p: Scalar) -> Images:
    """Return the pictures after each operation of the pipeline was applied to each of them with probability p.

    `numbers` are uniform in [0, 1), `numbers_needed(pipeline)` a row; row i is picture i's. The pictures may be of any size and have 1 or 3
    channels, and alpha after those: it moves with the picture, but no colour operation touches it. Their values may leave [-1, 1]; those
    that nothing was applied to come back exactly. Differentiable twice with respect to the pictures, and with the same bits each time.
    """
    needed = numbers_needed(pipeline)
    assert numbers.shape[1] == needed, f"{numbers.shape[1]} numbers for each picture, not {needed}"
    starts = zip(OPERATIONS, accumulate(OPERATIONS.values(), initial=0), strict=False)
    draws = {name: numbers[:, start : start + OPERATIONS[name]] for name, start in starts if name in pipeline}
    height, width = images.shape[2:]
    if placements := [place(draws[name], p, height, width) for name, place in GEOMETRY if name in draws]:
        images = warped(images, reduce(matrix_product, placements))
    if tints := [tint(draws[name], p) for name, tint in COLOUR if name in draws]:
        images = tinted(images, reduce(matrix_product, reversed(tints)))
    for name, edited in EDITS:
        if name in draws:
            images = edited(images, draws[name], p)
    return images


def next_probability(p: Scalar, sign_mean: Scalar, target: float, images: int, rise_images: int) -> Scalar:
    """Return p moved by images / rise_images, up if D knows its pictures too well, down if not (arXiv:2006.06676, section 3).

    `sign_mean` is r_t = E[sign(D(x))] over training pictures (eq. 1), in [-1, 1]: towards 1 as D overfits; the paper's target is 0.6. Of a loss
    whose logits have no zero, take the sign of its margin (docs/decisions/0004). `images` is how many were shown since p was last moved,
    `rise_images` how many take it from 0 to 1 (500,000 in the paper).
    """
    return (p + torch.sign(sign_mean - target) * (images / rise_images)).clamp(0, 1)


def applied(draws: Draws, p: Scalar) -> Bool[Tensor, " batch"]:
    """Return which pictures an operation is applied to: where not, its parameters are multiplied by 0, and 0 is always neutral."""
    return draws[:, 0] < p


def normal(uniform: Parameters) -> Parameters:
    """Return standard normal numbers, by the inverse of their distribution; within 4.9 of zero, since uniform ones can be 0."""
    return math.sqrt(2) * (2 * uniform - 1).clamp(-1 + 1e-6, 1 - 1e-6).erfinv()


# ADA's geometry: each function returns the inverse of what it does to a picture.


def flip(draws: Draws, p: Scalar, height: int, width: int) -> Placements:
    """Mirror half of the pictures, left to right."""
    return placed(draws, (1 - 2 * (applied(draws, p) * torch.floor(2 * draws[:, 1])), 0.0, 0.0), (0.0, 1.0, 0.0))


def quarter_turn(draws: Draws, p: Scalar, height: int, width: int) -> Placements:
    """Turn by 0, 90, 180 or 270 degrees; what that leaves empty in a picture that is not square is filled by reflection."""
    angle = applied(draws, p) * torch.floor(4 * draws[:, 1]) * (math.pi / 2)
    return turned(draws, angle.cos().round(), angle.sin().round())


def shift(draws: Draws, p: Scalar, height: int, width: int) -> Placements:
    """Move by whole pixels, up to 1/8 of the width and of the height."""
    across, down = (torch.round(applied(draws, p) * (draws[:, i] - 0.5) * size / 4) for i, size in ((1, width), (2, height)))
    return placed(draws, (1.0, 0.0, -across), (0.0, 1.0, -down))


def scale(draws: Draws, p: Scalar, height: int, width: int) -> Placements:
    """Enlarge by a factor 2^Normal(0, 0.2^2)."""
    inverse = torch.exp2(-0.2 * applied(draws, p) * normal(draws[:, 1]))
    return placed(draws, (inverse, 0.0, 0.0), (0.0, inverse, 0.0))


def turn_before(draws: Draws, p: Scalar, height: int, width: int) -> Placements:
    """Rotate by any angle before the stretch, with a probability that makes p that of rotating at all, before or after."""
    angle = applied(draws, 1 - torch.sqrt(1 - p)) * (2 * draws[:, 1] - 1) * math.pi
    return turned(draws, angle.cos(), angle.sin())


def turn_after(draws: Draws, p: Scalar, height: int, width: int) -> Placements:
    """Rotate again after the stretch, so that its axes too have any angle."""
    return turn_before(draws[:, 2:], p, height, width)


def stretch(draws: Draws, p: Scalar, height: int, width: int) -> Placements:
    """Widen by a factor 2^Normal(0, 0.2^2), and lower by the same."""
    factor = torch.exp2(0.2 * applied(draws, p) * normal(draws[:, 1]))
    return placed(draws, (1 / factor, 0.0, 0.0), (0.0, factor, 0.0))


def drift(draws: Draws, p: Scalar, height: int, width: int) -> Placements:
    """Move by Normal(0, (1/8)^2) of the width and of the height."""
    across, down = (applied(draws, p) * normal(draws[:, i]) * size / 8 for i, size in ((1, width), (2, height)))
    return placed(draws, (1.0, 0.0, -across), (0.0, 1.0, -down))


# ADA's colour. The axis that grey pictures live on is v = (1, 1, 1) / sqrt(3).


def brightness(draws: Draws, p: Scalar) -> Tints:
    """Add Normal(0, 0.2^2)."""
    return toned(draws, offset=0.2 * applied(draws, p) * normal(draws[:, 1]))


def contrast(draws: Draws, p: Scalar) -> Tints:
    """Multiply by 2^Normal(0, 0.5^2)."""
    return toned(draws, own=torch.exp2(0.5 * applied(draws, p) * normal(draws[:, 1])))


def invert(draws: Draws, p: Scalar) -> Tints:
    """Turn light into dark and keep hue and saturation, in half of the pictures: I - 2 v v^T."""
    return toned(draws, grey=-2 * (applied(draws, p) * torch.floor(2 * draws[:, 1])))


def hue(draws: Draws, p: Scalar) -> Tints:
    """Rotate about v by any angle: Rodrigues' formula."""
    angle = applied(draws, p) * (2 * draws[:, 1] - 1) * math.pi
    return toned(draws, own=angle.cos(), grey=1 - angle.cos(), cross=angle.sin())


def saturation(draws: Draws, p: Scalar) -> Tints:
    """Multiply the distance from v by 2^Normal(0, 1)."""
    factor = torch.exp2(applied(draws, p) * normal(draws[:, 1]))
    return toned(draws, own=factor, grey=1 - factor)


# DiffAugment.


def colour(images: Images, draws: Draws, p: Scalar) -> Images:
    """Add [-0.5, 0.5) to brightness, multiply saturation by [0, 2), then contrast, about the picture's mean, by [0.5, 1.5)."""
    light, chroma, depth = ((applied(draws, p) * (draws[:, i] - 0.5))[:, None, None, None] for i in (1, 2, 3))
    colours, alpha = colours_and_alpha(images)
    colours = colours + light
    colours = (1 + 2 * chroma) * colours - 2 * chroma * colours.mean(1, keepdim=True)
    colours = (1 + depth) * colours - depth * colours.mean((1, 2, 3), keepdim=True)
    return torch.cat([colours, alpha], dim=1)


def translation(images: Images, draws: Draws, p: Scalar) -> Images:
    """Move by whole pixels, up to 1/8 of the width and of the height, onto zeros: the paper's grey, also where pictures have a black ground."""
    axes = []
    for i, size in ((1, images.shape[2]), (2, images.shape[3])):
        most = int(size / 8 + 0.5)
        moved = applied(draws, p) * (torch.floor(draws[:, i] * (2 * most + 1)) - most)
        axes.append(torch.arange(size, device=draws.device) - moved.long()[:, None])
    down, across = axes[0][:, :, None], axes[1][:, None, :]
    height, width = images.shape[2:]
    inside = (down >= 0) & (down < height) & (across >= 0) & (across < width)
    source = down.clamp(0, height - 1) * width + across.clamp(0, width - 1)
    return gathered(images, source.flatten(1)[:, None], inside.flatten(1)[:, None].to(draws.dtype))


def cutout(images: Images, draws: Draws, p: Scalar) -> Images:
    """Put zeros in a rectangle half as high and half as wide as the picture, its centre anywhere in it: edges may lie outside."""
    covered = []
    for i, size in ((1, images.shape[2]), (2, images.shape[3])):
        side = int(size / 2 + 0.5)
        first = torch.floor(draws[:, i] * (size + 1 - side % 2)) - side // 2
        place = torch.arange(size, device=draws.device) - first[:, None]
        covered.append((place >= 0) & (place < side))
    hole = covered[0][:, :, None] & covered[1][:, None, :] & applied(draws, p)[:, None, None]
    return images.masked_fill(hole[:, None], 0.0)


GEOMETRY = (
    ("flip", flip),
    ("quarter-turn", quarter_turn),
    ("shift", shift),
    ("scale", scale),
    ("rotate", turn_before),
    ("stretch", stretch),
    ("rotate", turn_after),
    ("drift", drift),
)
"""One warp for all of them, bilinear, with reflection outside of the picture."""
COLOUR = (("brightness", brightness), ("contrast", contrast), ("invert", invert), ("hue", hue), ("saturation", saturation))
"""One matrix for all of them."""
EDITS = (("colour", colour), ("translation", translation), ("cutout", cutout))


def placed(like: Draws, row_x: Row, row_y: Row) -> Placements:
    """Return the matrices with these first two rows; a number stands in all of them."""
    entries = [entry if isinstance(entry, Tensor) else torch.full_like(like[:, 0], entry) for entry in (*row_x, *row_y, 0.0, 0.0, 1.0)]
    return torch.stack(entries, dim=1).unflatten(1, (3, 3))


def turned(like: Draws, cosine: Parameters, sine: Parameters) -> Placements:
    return placed(like, (cosine, -sine, 0.0), (sine, cosine, 0.0))


def toned(like: Draws, *, own: Part = 1.0, grey: Part = 0.0, cross: Part = 0.0, offset: Part = 0.0) -> Tints:
    """Return what turns a colour c into own c + grey v (v . c) + cross (v x c) + offset."""
    own, grey, cross, offset = (part[:, None, None] if isinstance(part, Tensor) else part for part in (own, grey, cross, offset))
    identity = torch.eye(3, dtype=like.dtype, device=like.device)
    across = (identity.roll(1, 0) - identity.roll(1, 1)) / math.sqrt(3)
    matrices = torch.eye(4, dtype=like.dtype, device=like.device).repeat(like.shape[0], 1, 1)
    matrices[:, :3, :3] = own * identity + grey * (torch.ones_like(identity) / 3) + cross * across
    matrices[:, :3, 3:] = offset
    return matrices


def matrix_product(first: Float[Tensor, "batch n n"], second: Float[Tensor, "batch n n"]) -> Float[Tensor, "batch n n"]:
    """Return first @ second in full precision: a GPU may be allowed to multiply matrices in TF32, which would move pixels."""
    return (first[:, :, :, None] * second[:, None]).sum(2)


def colours_and_alpha(images: Images) -> tuple[Float[Tensor, "batch colour height width"], Float[Tensor, "batch alpha height width"]]:
    num_colours = 3 if images.shape[1] >= 3 else 1
    return images[:, :num_colours], images[:, num_colours:]


def tinted(images: Images, tints: Tints) -> Images:
    """Return the pictures with new colours; for grey ones, of the new colour only its part along v."""
    colours, alpha = colours_and_alpha(images)
    linear, offset = tints[:, :3, :3], tints[:, :3, 3]
    if colours.shape[1] == 1:
        linear, offset = linear.sum(2, keepdim=True).mean(1, keepdim=True), offset.mean(1, keepdim=True)
    parts = [linear[:, :, i, None, None] * colours[:, i, None] for i in range(colours.shape[1])]
    return torch.cat([sum(parts, offset[:, :, None, None]), alpha], dim=1)


def warped(images: Images, placements: Placements) -> Images:
    """Return the pictures with each pixel taken from where its placement says: between four pixels, each weighing the less the farther it is."""
    height, width = images.shape[2:]
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    x = torch.arange(width, dtype=placements.dtype, device=placements.device) - middle_x
    y = torch.arange(height, dtype=placements.dtype, device=placements.device)[:, None] - middle_y
    to_x, to_y = (placements[:, i, :, None, None].unbind(1) for i in (0, 1))
    from_x = (to_x[0] * x + to_x[1] * y + to_x[2]) + middle_x
    from_y = (to_y[0] * x + to_y[1] * y + to_y[2]) + middle_y
    left, top = from_x.floor(), from_y.floor()
    right_weight, bottom_weight = from_x - left, from_y - top
    columns = [(reflected(left + i, width), weight) for i, weight in ((0, 1 - right_weight), (1, right_weight))]
    rows = [(reflected(top + i, height), weight) for i, weight in ((0, 1 - bottom_weight), (1, bottom_weight))]
    pairs = list(product(rows, columns))
    neighbours = torch.stack([(row * width + column).flatten(1) for (row, _), (column, _) in pairs], dim=1)
    weights = torch.stack([(row_weight * column_weight).flatten(1) for (_, row_weight), (_, column_weight) in pairs], dim=1)
    return gathered(images, neighbours, weights)


def reflected(position: Float[Tensor, "batch height width"], size: int) -> Int64[Tensor, "batch height width"]:
    """Return the position in 0..size-1 where mirrors at both edges show a whole one, the outermost pixel being seen twice."""
    position = position - 2 * size * torch.floor(position / (2 * size))  # ten times faster than whole numbers' remainder
    return torch.minimum(position, 2 * size - 1 - position).long()


def gathered(images: Images, neighbours: Neighbours, weights: Weights) -> Images:
    """Return the pictures whose pixels are these sums of the old ones."""
    return _Gather.apply(images.flatten(2), neighbours, weights).unflatten(2, images.shape[2:])


class _Gather(Function):
    """Sums of neighbours. Not `grid_sample`: its gradient adds up in any order on a GPU, and has none itself in older versions of PyTorch."""

    @staticmethod
    def forward(ctx: Any, values: Values, neighbours: Neighbours, weights: Weights) -> Tensor:
        ctx.save_for_backward(neighbours, weights)
        ctx.num_values = values.shape[2]
        index = neighbours.flatten(1)[:, None].expand(-1, values.shape[1], -1)
        return (values.gather(2, index).unflatten(2, neighbours.shape[1:]) * weights[:, None]).sum(2)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        return _Spread.apply(*grad_outputs, *ctx.saved_tensors, ctx.num_values), None, None


class _Spread(Function):
    """The transpose of `_Gather`: each value is added to its neighbours.

    In whole numbers, of which the largest value of a picture is 2^40, since their sum is the same in any order: a resumed run has to end with
    the same bits. What is not finite stays so, through that largest value. Metal has no such sum, so there it is computed on the CPU.
    """

    @staticmethod
    def forward(ctx: Any, values: Values, neighbours: Neighbours, weights: Weights, num_values: int) -> Tensor:
        ctx.save_for_backward(neighbours, weights)
        device = values.device
        if is_metal(device):
            values, neighbours, weights = values.cpu(), neighbours.cpu(), weights.cpu()
        largest = values.abs().amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
        parts = (values / largest)[:, :, None] * (weights[:, None] * 2.0**40)
        index = neighbours.flatten(1)[:, None].expand(-1, values.shape[1], -1)
        sums = torch.zeros(*values.shape[:2], num_values, dtype=torch.int64, device=values.device)
        spread = sums.scatter_add_(2, index, parts.long().flatten(2)).to(values.dtype) * 2.0**-40 * largest
        return spread.to(device)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        return _Gather.apply(*grad_outputs, *ctx.saved_tensors), None, None, None
