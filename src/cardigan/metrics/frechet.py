"""The Frechet distance between two sets of features (arXiv:1706.08500, section 3: the formula of the FID).

Works on any features. Only with Inception features is it an FID.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from cardigan.errors import CardiganError


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution over features: its mean, and a matrix R with R^T R equal to its covariance."""

    mean: Float64[Tensor, " feature"]
    root: Float64[Tensor, "rank feature"]


def fit_gaussian(rows: Float[Tensor, "n feature"]) -> Gaussian:
    """Return the Gaussian of the rows' mean and covariance (n - 1 in the denominator), in float64.

    R comes from a QR decomposition, which avoids squaring and also works with fewer rows than features.
    Raises CardiganError for fewer than two rows.
    """
    if len(rows) < 2:
        raise CardiganError(f"A distribution of {len(rows)} images: expected at least 2.")
    rows = rows.double()
    mean = rows.mean(0)
    return Gaussian(mean, torch.linalg.qr((rows - mean) / (len(rows) - 1) ** 0.5, mode="r").R)


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """Return |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).

    tr (S1 S2)^(1/2) is the sum of the singular values of R1 R2^T. It is real and stable even for singular covariances.
    """
    mean_difference = first.mean - second.mean
    cross = torch.linalg.svdvals(first.root @ second.root.T).sum()
    return float(mean_difference.square().sum() + first.root.square().sum() + second.root.square().sum() - 2 * cross)


def frechet_with_influence_error(rows: Float[Tensor, "n feature"], reference: Gaussian) -> tuple[float, float]:
    """Return the Frechet distance of the rows to a reference, and its standard error by the infinitesimal jackknife.

    It costs one decomposition (Efron 1982, eq. 6.9). The derivative of the distance by the weight of the centered row c
    is 2 (m1 - m2) c + |c|^2 - (n - 1) q U S U^T q. The centered rows are (n - 1)^(1/2) Q R1, q is the row of Q, and
    R1 R2^T = U S V^T. Nothing is inverted, so singular covariances work. With fewer rows than about twice the number of
    features, the error is too large rather than too small (lab book).
    """
    if len(rows) < 2:
        raise CardiganError(f"A distribution of {len(rows)} images: expected at least 2.")
    rows = rows.double()
    mean = rows.mean(0)
    centered = rows - mean
    directions, root = torch.linalg.qr(centered / (len(rows) - 1) ** 0.5)
    left, cross, _ = torch.linalg.svd(root @ reference.root.T, full_matrices=False)
    mean_difference = mean - reference.mean
    influence = (
        2 * centered @ mean_difference
        + centered.square().sum(1)
        - (len(rows) - 1) * ((directions @ left).square() @ cross)
    )
    value = mean_difference.square().sum() + root.square().sum() + reference.root.square().sum() - 2 * cross.sum()
    return float(value), float(influence.std() / len(rows) ** 0.5)
