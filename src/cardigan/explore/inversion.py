"""The latent whose picture comes nearest to a given one, found by descent through the generator. Changes no weight."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from cardigan.errors import CardiganError
from cardigan.latents import LATENTS
from cardigan.pixels import decode
from cardigan.rng import stream
from cardigan.run.snapshot import Snapshot, check_labels, draw_pixels
from cardigan.shapes import Images, Labels, Latents, Pixels

CANDIDATES = 512
"""Latents that are tried before the descent, of all classes alike."""
STARTS = 4
"""The nearest of them that the descent starts from: it ends in the valley it begins in."""
MOST_CLASSES, TRYING = 20, 4
"""Where no class is named, the nearest start of each of so many classes goes a quarter of the steps; the best of them go on."""
LEARNING_RATE = 0.1
COARSE = 4
"""Pictures are compared once more at a so many times smaller size, where neighbouring strokes still overlap."""
One = Float[Tensor, "1 channel height width"]
Told = Callable[[int, int, float], object]
"""Hears how many steps of how many are done, and the error so far in grey levels."""


@dataclass(frozen=True)
class Inverted:
    """What was found."""

    z: Float[Tensor, "1 latent"]
    label: int | None
    """The class it is drawn with; None for a generator without classes."""
    pixels: Pixels
    """The picture of z, [1, channels, height, width]."""
    error: float
    """Root mean square difference from the given picture, in grey levels 0..255."""
    steps: int


def invert(snapshot: Snapshot, picture: Pixels, label: int | None = None, steps: int = 200, seed: int = 0, told: Told | None = None) -> Inverted:
    """Return the z that draws the picture [1, channels, height, width] best, by Adam from the nearest of many random starts.

    Minimises the squared difference, at full size and at a quarter of it (arXiv:1702.04782, eq. 1, has the first alone). Latents stay where the
    generator was trained: uniform ones in their range, normal ones at no more than their usual length. Without a `label` the nearest twenty
    classes are tried first.
    Deterministic. Raises CardiganError for a picture of another size or channel count, a wrong label, or no steps.
    """
    spec = snapshot.spec
    if tuple(picture.shape) != (1, spec.channels, spec.height, spec.width):
        given, expected = ("x".join(map(str, shape)) for shape in (picture.shape, (1, spec.channels, spec.height, spec.width)))
        raise CardiganError(f"The picture to invert is {given}: expected {expected}, so bring it into the run's frame first.")
    if steps < 1:
        raise CardiganError(f"steps is {steps}: expected at least 1.")
    if label is not None:
        check_labels(torch.tensor([label]), 1, spec.classes)
    target = decode(picture).to(_device(snapshot))
    z, labels = _starts(snapshot, target, label, seed)
    if labels is not None and label is None:
        tried, apart = _descended(snapshot, target, z, labels, max(1, steps // TRYING), None)
        best = apart.argsort(stable=True)[:STARTS]
        z, labels = tried[best], labels[best]
    found, error = _descended(snapshot, target, z, labels, steps, told)
    chosen = slice(int(error.argmin()), int(error.argmin()) + 1)
    own = None if labels is None else labels[chosen]
    pixels = draw_pixels(snapshot.generator, found[chosen], own)
    difference = (pixels.double() - picture.double()).square().mean().sqrt()
    return Inverted(found[chosen], None if own is None else int(own), pixels, float(difference), steps)


@torch.no_grad()
def _starts(snapshot: Snapshot, target: One, label: int | None, seed: int) -> tuple[Latents, Labels | None]:
    """Return the latents nearest to the picture among many, and their classes."""
    latent, classes = snapshot.config.latent, snapshot.spec.classes
    count = max(CANDIDATES, classes)
    z = LATENTS[latent.distribution]((count, latent.size), stream(seed, "inversion", 0))
    labels = None
    if classes:
        labels = torch.arange(count) % classes if label is None else torch.full((count,), label)
    drawn = decode(draw_pixels(snapshot.generator, z, labels))
    nearest = _difference(drawn, target.cpu()).argsort(stable=True)
    if labels is None or label is not None:
        nearest = nearest[:STARTS]
        return z[nearest], None if labels is None else labels[nearest]
    first = {int(labels[place]): place for place in reversed(nearest.tolist())}  # the nearest of each class is written last
    best = sorted(first.values(), key=nearest.tolist().index)[:MOST_CLASSES]
    return z[best], labels[best]


def _descended(
    snapshot: Snapshot, target: One, z: Latents, labels: Labels | None, steps: int, told: Told | None
) -> tuple[Latents, Float[Tensor, " start"]]:
    """Return the best latent from each start, and its mean squared difference."""
    device = _device(snapshot)
    uniform, size = snapshot.config.latent.distribution == "uniform", z.shape[1]
    classes = None if labels is None else labels.to(device)
    current = z.to(device).clone().requires_grad_()
    best, least = current.detach().clone(), torch.full((len(z),), torch.inf, device=device)
    adam = torch.optim.Adam([current], LEARNING_RATE)
    with torch.enable_grad():
        for step in range(steps):
            adam.param_groups[0]["lr"] = LEARNING_RATE * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
            drawn = snapshot.generator(current, classes).float()
            plain = (drawn - target).square().flatten(1).mean(1).detach()
            better = plain < least
            best, least = torch.where(better[:, None], current.detach(), best), torch.where(better, plain, least)
            loss = _difference(drawn, target).sum()
            (current.grad,) = torch.autograd.grad(loss, current)
            adam.step()
            with torch.no_grad():
                if uniform:
                    current.clamp_(-1, 1)
                else:
                    current.mul_((size**0.5 / current.norm(dim=1, keepdim=True).clamp(min=1e-9)).clamp(max=1))
            if told is not None:
                told(step + 1, steps, float(least.min()) ** 0.5 * 127.5)
    return best.cpu(), least.cpu()


def _difference(drawn: Images, target: One) -> Float[Tensor, " batch"]:
    """Return the mean squared difference of each picture at full size plus that of the smaller ones."""
    apart = drawn - target
    side = min(COARSE, *apart.shape[2:])
    return apart.square().flatten(1).mean(1) + avg_pool2d(apart, side).square().flatten(1).mean(1)


def _device(snapshot: Snapshot) -> torch.device:
    return next(snapshot.generator.parameters()).device
