"""Principal directions of a generator's first features, found without labels (GANSpace, arXiv:2004.02546).

`explore.layers` knows which module computes the first features.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cardigan.errors import CardiganError
from cardigan.explore.layers import generator_layers, layer_output
from cardigan.latents.sampling import find_latent
from cardigan.models.sampling import sample_batch_size
from cardigan.models.snapshot import Snapshot
from cardigan.rng import stream
from cardigan.shapes import Labels, Latents

SAMPLES_PER_CLASS = 100
"""Minimum samples per class. If there are more classes than that allows, only the first ones are used."""


@dataclass(frozen=True)
class Directions:
    """Directions in latent space, ordered by how much they change the features, largest first."""

    vectors: Float[Tensor, "direction latent"]
    """Unit vectors."""
    std: Float[Tensor, " direction"]
    """Length in z of one standard deviation of the features' principal coordinate."""
    explained_variance_ratio: Float[Tensor, " direction"]
    """Fraction of the features' variance, 0..1."""


def principal_directions(snapshot: Snapshot, count: int = 8, samples: int = 2000, seed: int = 0) -> Directions:
    """Return the principal directions of G's first features, regressed onto z (arXiv:2004.02546, section 3.1, eq. 2).

    For a class-conditional generator the variance within each class is used. The same arguments give the same
    directions; the largest component of each is positive. Raises CardiganError for more directions than latent
    dimensions.
    """
    size = snapshot.config.latent.size
    if not 1 <= count <= size or samples <= size:
        raise CardiganError(
            f"{count} directions from {samples} samples: expected 1..{size} directions, and more samples than latent "
            f"dimensions ({size})."
        )
    z = find_latent(snapshot.config.latent.distribution)((samples, size), stream(seed, "directions", 0))
    classes = min(snapshot.spec.num_classes, max(1, samples // SAMPLES_PER_CLASS))
    labels = torch.arange(samples) % classes if classes else None
    features = first_layer_features(snapshot, z, labels)
    for class_index in range(max(1, classes)):
        in_class = slice(None) if labels is None else labels == class_index
        features[in_class] -= features[in_class].mean(0)
    # The principal coordinates of n samples are eigenvectors of their n x n Gram matrix, for any number of features.
    values, coordinates = torch.linalg.eigh((features @ features.T).double())
    order = torch.arange(samples - 1, samples - 1 - min(count, samples), -1)
    values, coordinates = values[order].clamp(min=0), coordinates[:, order]
    whitened = coordinates * (samples - 1) ** 0.5  # each coordinate divided by its standard deviation
    regression = torch.linalg.lstsq(whitened, z.double() - z.double().mean(0)).solution
    largest_component = regression.gather(1, regression.abs().argmax(1, keepdim=True))
    lengths = regression.norm(dim=1)
    vectors = regression * largest_component.sign() / lengths.clamp(min=1e-12)[:, None]
    return Directions(
        vectors.float(), lengths.float(), (values / features.double().square().sum().clamp(min=1e-12)).float()
    )


@torch.no_grad()
def first_layer_features(snapshot: Snapshot, z: Latents, labels: Labels | None) -> Float[Tensor, "batch feature"]:
    """Return the outputs of G's first layer for z, on the CPU. In `dcgan` and `mlp` they are linear in z."""
    generator = snapshot.generator
    device = next(generator.parameters()).device
    batch_size = sample_batch_size(device)
    first_layer, rows = generator_layers(generator)[0], []
    for start in range(0, len(z), batch_size):
        chunk = slice(start, start + batch_size)
        activations = layer_output(
            first_layer, generator, z[chunk].to(device), None if labels is None else labels[chunk].to(device)
        )
        rows.append(activations.flatten(1).float().cpu())
    return torch.cat(rows)


def move_along_directions(z: Latents, directions: Directions, amounts: dict[int, float]) -> Latents:
    """Return z moved along numbered directions; each amount is in standard deviations.

    Raises CardiganError for a direction that does not exist.
    """
    for number in amounts:
        if not 0 <= number < len(directions.vectors):
            raise CardiganError(f"direction is {number}: expected 0..{len(directions.vectors) - 1}.")
    return z + sum(
        (amount * directions.std[number] * directions.vectors[number] for number, amount in amounts.items()),
        torch.zeros_like(z[:1]),
    )
