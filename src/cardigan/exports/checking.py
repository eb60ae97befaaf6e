"""Verifies an export: the largest difference from PyTorch over several latents, classes, truncations and batch sizes.

Independent of the format.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from cardigan.errors import CardiganError
from cardigan.exports.interface import GenerateFn
from cardigan.latents.sampling import sample_latents
from cardigan.models.sampling import random_labels
from cardigan.models.snapshot import Snapshot
from cardigan.shapes import Images, Labels, Latents

CHECK_BATCHES = ((1, 1.0), (2, 0.7), (7, 1.0), (16, 0.0), (33, 0.5))
"""Batch sizes and their truncation."""
FIRST_SEED = 2**40
"""Seeds outside the range that users choose by hand."""


@dataclass(frozen=True)
class CheckInput:
    """Inputs of one verification batch."""

    z: Latents
    labels: Labels | None
    truncation: float


def check_inputs(snapshot: Snapshot) -> Iterator[CheckInput]:
    """Yield batches of latents and classes, the last and the first class among them."""
    latent, classes = snapshot.config.latent, snapshot.spec.num_classes
    for number, (size, truncation) in enumerate(CHECK_BATCHES):
        keys = [(FIRST_SEED + number, index) for index in range(size)]
        labels = random_labels(snapshot.spec, keys)
        if labels is not None and size > 1:
            labels[:2] = torch.tensor([0, classes - 1])
        yield CheckInput(sample_latents(latent.distribution, keys, latent.size), labels, truncation)


def pytorch_generate_fn(snapshot: Snapshot) -> GenerateFn:
    """Return the reference: the generator in PyTorch."""

    @torch.no_grad()
    def generate(z: Latents, labels: Labels | None, truncation: float) -> Images:
        return snapshot.generator(z * truncation, labels).clamp(-1, 1)

    return generate


def largest_difference(snapshot: Snapshot, generate: GenerateFn) -> float:
    """Return the largest absolute difference from PyTorch, for images in [-1, 1]; infinite for invalid output."""
    pytorch_generate, largest = pytorch_generate_fn(snapshot), 0.0
    for check_input in check_inputs(snapshot):
        expected_images, actual_images = (
            generate_fn(check_input.z, check_input.labels, check_input.truncation)
            for generate_fn in (pytorch_generate, generate)
        )
        if actual_images.shape != expected_images.shape or not bool(torch.isfinite(actual_images).all()):
            return float("inf")
        largest = max(largest, float((actual_images - expected_images).abs().max()))
    return largest


def check_difference(title: str, difference: float, tolerance: float) -> None:
    """Raise CardiganError for an export whose difference from PyTorch exceeds the tolerance."""
    if not difference <= tolerance:
        raise CardiganError(
            f"The images of the {title} differ from PyTorch's by {difference:.2g} (tolerance {tolerance:.0e}, for "
            "images in [-1, 1]), so nothing was written. Export as safetensors instead, and report this."
        )
