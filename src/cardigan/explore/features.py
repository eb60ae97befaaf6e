"""What D's features are good for beyond the game: a linear classifier on them, and how strange a picture is to them.

Looks at one discriminator; knows no files.
"""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, cross_entropy, leaky_relu

from cardigan.errors import CardiganError
from cardigan.explore.layers import discriminator_layers, refuse_packs, seen
from cardigan.nets.dcgan import DcganDiscriminator
from cardigan.pixels import decode
from cardigan.run.players import Players
from cardigan.shapes import Pixels

Features = Float[Tensor, "_ feature"]
Classes = Int64[Tensor, " _"]
CHUNK = 500
NEAREST = 5
"""Known pictures that a picture is compared with."""
LEAST_SPACING = 0.1
"""Known pictures that are closer together than this share of the usual count as so far apart: copies would make all else infinitely strange."""
WEIGHTS = (1e-4, 1e-3, 1e-2, 1e-1)
"""L2 weights that a linear classifier may choose among."""


def features(players: Players, pixels: Pixels) -> Float[Tensor, "batch feature"]:
    """Return D's features of pictures, a row each, fp32 on the CPU: every layer of `dcgan`, max-pooled to 4x4 (arXiv:1511.06434, section 5.1);
    of other networks the last layer, pooled likewise.

    Raises CardiganError for a D whose features depend on the class, which it sees as planes or beside the picture, and for one that judges packs.
    """
    discriminator, classes = players.discriminator, players.snapshot.spec.classes
    refuse_packs(discriminator)
    if classes and players.snapshot.config.discriminator.conditioning == "one-hot":
        raise CardiganError("This discriminator sees the class beside the picture, so it has no features of a picture alone: give another run.")
    layers = discriminator_layers(discriminator)
    chosen = layers if isinstance(discriminator, DcganDiscriminator) else layers[-1:]
    device = next(discriminator.parameters()).device
    rows = []
    with torch.no_grad(), seen(chosen) as maps:
        for part in pixels.split(CHUNK):
            maps.clear()
            discriminator(decode(part).to(device), torch.zeros(len(part), dtype=torch.long, device=device) if classes else None)
            rows.append(torch.cat([_pooled(each.cpu()) for each in maps], dim=1).float())
    return torch.cat(rows)


def _pooled(maps: Tensor) -> Tensor:
    """Return a layer's outputs as the layer above sees them, a row a picture."""
    if maps.dim() < 4:
        return maps.flatten(1)
    rectified = leaky_relu(maps, 0.2)
    return (adaptive_max_pool2d(rectified, 4) if min(maps.shape[2:]) > 4 else rectified).flatten(1)


def strangeness(known: Features, given: Features, themselves: bool = False) -> Float[Tensor, " _"]:
    """Return how much farther each given picture is from its five nearest known ones than those are from their own five: about 1 is usual.

    Mean distances, in features scaled by their spread among the known: the local outlier factor of Breunig et al. (SIGMOD 2000, definition 7)
    with plain distances for reachability. Distances alone would call whatever is faint or simple usual, and elaborate pictures strange.
    With `themselves` the given ones are the known, in the same order, and none counts as its own neighbour.
    Raises CardiganError for fewer known pictures than that needs.
    """
    if len(known) < NEAREST + 1:
        raise CardiganError(f"Only {len(known)} pictures are known: expected at least {NEAREST + 1} to compare with.")
    mean, scale = known.mean(0), known.std(0).clamp(min=1e-3)
    known, given = (known - mean) / scale, (given - mean) / scale
    spacing, neighbours = _nearest(known, known, themselves=True)
    spacing = spacing.clamp(min=LEAST_SPACING * float(spacing.median())).clamp(min=1e-6)
    distance, neighbours = (spacing, neighbours) if themselves else _nearest(given, known, themselves=False)
    return distance / spacing[neighbours].mean(1)


def _nearest(rows: Features, known: Features, themselves: bool) -> tuple[Float[Tensor, " _"], Int64[Tensor, "_ nearest"]]:
    """Return each row's mean distance to its nearest known rows, and where those are."""
    found = []
    for start in range(0, len(rows), CHUNK):
        distances = torch.cdist(rows[start : start + CHUNK], known)
        if themselves:
            places = torch.arange(len(distances))
            distances[places, start + places] = torch.inf
        found.append(distances.topk(NEAREST, largest=False))
    return torch.cat([each.values.mean(1) for each in found]), torch.cat([each.indices for each in found])


def linear_error(train: Features, labels: Classes, test: Features, test_labels: Classes, classes: int = 10) -> float:
    """Return the test error, 0..1, of multinomial logistic regression; its L2 weight is chosen on a fifth of the training pictures."""
    mean, scale = train.mean(0), train.std(0).clamp(min=1e-3)
    train, test = (train - mean) / scale, (test - mean) / scale
    fifth = max(1, len(train) // 5)
    errors = [_wrong(_fitted(train[fifth:], labels[fifth:], weight, classes), train[:fifth], labels[:fifth]) for weight in WEIGHTS]
    return _wrong(_fitted(train, labels, WEIGHTS[errors.index(min(errors))], classes), test, test_labels)


def _fitted(rows: Features, labels: Classes, weight: float, classes: int) -> Tensor:
    matrix = torch.zeros(rows.shape[1] + 1, classes, requires_grad=True)
    descent = torch.optim.LBFGS([matrix], max_iter=100, line_search_fn="strong_wolfe")

    def cost() -> Any:
        descent.zero_grad()
        loss = cross_entropy(rows @ matrix[:-1] + matrix[-1], labels) + weight * matrix[:-1].square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        descent.step(cost)
    return matrix.detach()


def _wrong(matrix: Tensor, rows: Features, labels: Classes) -> float:
    return float(((rows @ matrix[:-1] + matrix[-1]).argmax(1) != labels).float().mean())
