"""The proof that an export draws what PyTorch draws: several latents, classes, truncations and batch sizes, the largest difference.

Does not know any format: it is given what draws.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from cardigan.errors import CardiganError
from cardigan.exports.interface import Drawing
from cardigan.latents import sample_labels, sample_latents
from cardigan.run.snapshot import Snapshot
from cardigan.shapes import Images, Labels, Latents

BATCHES = ((1, 1.0), (2, 0.7), (7, 1.0), (16, 0.0), (33, 0.5))
"""Pictures at a time, and their truncation."""
SEED = 2**40
"""Seeds that nobody draws by hand, so that what is checked is not what was looked at."""


@dataclass(frozen=True)
class Probe:
    """What is drawn by both."""

    z: Latents
    labels: Labels | None
    truncation: float


def probes(snapshot: Snapshot) -> Iterator[Probe]:
    """Yield batches of latents and classes, the last and the first class among them."""
    latent, classes = snapshot.config.latent, snapshot.spec.classes
    for number, (size, truncation) in enumerate(BATCHES):
        keys = [(SEED + number, place) for place in range(size)]
        labels = sample_labels(keys, classes) if classes else None
        if labels is not None and size > 1:
            labels[:2] = torch.tensor([0, classes - 1])
        yield Probe(sample_latents(latent.distribution, keys, latent.size), labels, truncation)


def drawing_of(snapshot: Snapshot) -> Drawing:
    """Return PyTorch's own drawing."""

    @torch.no_grad()
    def draw(z: Latents, labels: Labels | None, truncation: float) -> Images:
        return snapshot.generator(z * truncation, labels).clamp(-1, 1)

    return draw


def largest_difference(snapshot: Snapshot, draw: Drawing) -> float:
    """Return the largest difference between two pictures' values, of 2 between black and white; infinite where one is no picture."""
    expected, found = drawing_of(snapshot), 0.0
    for probe in probes(snapshot):
        ours, theirs = (each(probe.z, probe.labels, probe.truncation) for each in (expected, draw))
        if theirs.shape != ours.shape or not bool(torch.isfinite(theirs).all()):
            return float("inf")
        found = max(found, float((theirs - ours).abs().max()))
    return found


def check_difference(what: str, difference: float, allowed: float) -> None:
    """Raise CardiganError, before anything is kept, for an export that draws something else."""
    if not difference <= allowed:
        raise CardiganError(
            f"The {what} draws other pictures than PyTorch: they differ by {difference:.2g} where {allowed:.0e} is allowed (of 2 between black and "
            "white), so nothing was kept. Export as safetensors instead, and report this."
        )
