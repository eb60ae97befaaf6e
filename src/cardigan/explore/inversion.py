"""GAN inversion: finds the latent whose image is closest to a target, by gradient descent. Changes no weight."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from cardigan.errors import CardiganError
from cardigan.latents.sampling import find_latent
from cardigan.models.sampling import generate_pixels, validate_labels
from cardigan.models.snapshot import Snapshot
from cardigan.pixels import decode
from cardigan.rng import stream
from cardigan.shapes import Images, Labels, Latents, Pixels

NUM_CANDIDATES = 512
"""Random latents that are compared with the target before the descent, spread evenly over the classes."""
NUM_STARTS = 4
"""Number of best candidates that the descent starts from. Several starts avoid poor local minima."""
MAX_CLASSES, TRIAL_STEPS_DIVISOR = 20, 4
"""Without a label, the best candidate of up to 20 classes is first optimized for a quarter of the steps."""
LEARNING_RATE = 0.1
COARSE_FACTOR = 4
"""Images are also compared at a size this many times smaller, where nearby strokes still overlap."""
SingleImage = Float[Tensor, "1 channel height width"]
ProgressFn = Callable[[int, int, float], object]
"""Called with the steps done, the total steps, and the best RMSE so far in gray levels."""


@dataclass(frozen=True)
class InversionResult:
    """The best latent and its image."""

    z: Float[Tensor, "1 latent"]
    label: int | None
    """The class of the generated image; None for an unconditional generator."""
    pixels: Pixels
    """The image of z, [1, channels, height, width]."""
    rmse: float
    """Root mean square difference from the target, in gray levels 0..255."""
    steps: int


def invert(
    snapshot: Snapshot,
    image: Pixels,
    label: int | None = None,
    steps: int = 200,
    seed: int = 0,
    progress: ProgressFn | None = None,
) -> InversionResult:
    """Return the z whose image is closest to `image` [1, channels, height, width], by Adam from the best random starts.

    Minimizes the squared difference at full size plus that at a quarter of the size (arXiv:1702.04782, eq. 1, has only
    the first). Latents stay in the training distribution: uniform ones are clamped to [-1, 1], normal ones to a norm of
    at most sqrt(size). Without a `label` the twenty nearest classes are tried first. Deterministic.
    Raises CardiganError for an image of another size or channel count, an invalid label, or steps < 1.
    """
    spec = snapshot.spec
    if tuple(image.shape) != (1, spec.channels, spec.height, spec.width):
        image_shape, expected = (
            "x".join(map(str, shape)) for shape in (image.shape, (1, spec.channels, spec.height, spec.width))
        )
        raise CardiganError(
            f"The image to invert is {image_shape}: expected {expected}. Preprocess it to the run's shape first."
        )
    if steps < 1:
        raise CardiganError(f"steps is {steps}: expected at least 1.")
    if label is not None:
        validate_labels(torch.tensor([label]), 1, spec.num_classes)
    target = decode(image).to(_device(snapshot))
    z, labels = _initial_latents(snapshot, target, label, seed)
    if labels is not None and label is None:
        trial_z, trial_error = _optimize_latents(
            snapshot, target, z, labels, max(1, steps // TRIAL_STEPS_DIVISOR), None
        )
        best_starts = trial_error.argsort(stable=True)[:NUM_STARTS]
        z, labels = trial_z[best_starts], labels[best_starts]
    latents, error = _optimize_latents(snapshot, target, z, labels, steps, progress)
    best_start = slice(int(error.argmin()), int(error.argmin()) + 1)
    best_label = None if labels is None else labels[best_start]
    pixels = generate_pixels(snapshot.generator, latents[best_start], best_label)
    difference = (pixels.double() - image.double()).square().mean().sqrt()
    return InversionResult(
        latents[best_start], None if best_label is None else int(best_label), pixels, float(difference), steps
    )


@torch.no_grad()
def _initial_latents(
    snapshot: Snapshot, target: SingleImage, label: int | None, seed: int
) -> tuple[Latents, Labels | None]:
    """Return the candidates whose images are closest to the target, and their classes."""
    latent, classes = snapshot.config.latent, snapshot.spec.num_classes
    count = max(NUM_CANDIDATES, classes)
    z = find_latent(latent.distribution)((count, latent.size), stream(seed, "inversion", 0))
    labels = None
    if classes:
        labels = torch.arange(count) % classes if label is None else torch.full((count,), label)
    images = decode(generate_pixels(snapshot.generator, z, labels))
    nearest = _reconstruction_error(images, target.cpu()).argsort(stable=True)
    if labels is None or label is not None:
        nearest = nearest[:NUM_STARTS]
        return z[nearest], None if labels is None else labels[nearest]
    # Reversed, so that the nearest of each class is written last.
    nearest_by_class = {int(labels[candidate]): candidate for candidate in reversed(nearest.tolist())}
    starts = sorted(nearest_by_class.values(), key=nearest.tolist().index)[:MAX_CLASSES]
    return z[starts], labels[starts]


def _optimize_latents(
    snapshot: Snapshot, target: SingleImage, z: Latents, labels: Labels | None, steps: int, progress: ProgressFn | None
) -> tuple[Latents, Float[Tensor, " start"]]:
    """Return the best latent of each start, and its mean squared error."""
    device = _device(snapshot)
    distribution, size = snapshot.config.latent.distribution, z.shape[1]
    classes = None if labels is None else labels.to(device)
    latents = z.to(device).clone().requires_grad_()
    best_latents, best_error = latents.detach().clone(), torch.full((len(z),), torch.inf, device=device)
    optimizer = torch.optim.Adam([latents], LEARNING_RATE)
    with torch.enable_grad():
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * (
                0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps))
            )
            images = snapshot.generator(latents, classes).float()
            error = (images - target).square().flatten(1).mean(1).detach()
            is_better = error < best_error
            best_latents, best_error = (
                torch.where(is_better[:, None], latents.detach(), best_latents),
                torch.where(is_better, error, best_error),
            )
            loss = _reconstruction_error(images, target).sum()
            (latents.grad,) = torch.autograd.grad(loss, latents)
            optimizer.step()
            with torch.no_grad():
                if distribution == "uniform":
                    latents.clamp_(-1, 1)
                elif distribution == "normal":
                    latents.mul_((size**0.5 / latents.norm(dim=1, keepdim=True).clamp(min=1e-9)).clamp(max=1))
            if progress is not None:
                progress(step + 1, steps, float(best_error.min()) ** 0.5 * 127.5)
    return best_latents.cpu(), best_error.cpu()


def _reconstruction_error(images: Images, target: SingleImage) -> Float[Tensor, " batch"]:
    """Return each image's mean squared error at full size plus that at the smaller size."""
    difference = images - target
    pool_size = min(COARSE_FACTOR, *difference.shape[2:])
    return difference.square().flatten(1).mean(1) + avg_pool2d(difference, pool_size).square().flatten(1).mean(1)


def _device(snapshot: Snapshot) -> torch.device:
    return next(snapshot.generator.parameters()).device
