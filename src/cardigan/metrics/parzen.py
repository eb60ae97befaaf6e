"""The Gaussian Parzen log-likelihood (the GAN paper, arXiv:1406.2661, section 5).

A weak metric of image quality (arXiv:1511.01844 explains why), provided for comparison with older papers.
"""

import math

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from cardigan.errors import CardiganError
from cardigan.metrics.distances import squared_distances
from cardigan.metrics.statistics import mean_with_error

SIGMAS = tuple(10 ** (-1 + step / 9) for step in range(10))
"""Candidate window widths for pixels in [0, 1]: ten from 0.1 to 1, log-spaced, as in the GAN paper's code."""
TILE_SIZE = 500


def parzen_log_likelihood(
    samples: UInt8[Tensor, "sample _ _ _"],
    validation: UInt8[Tensor, "validation _ _ _"],
    test: UInt8[Tensor, "test _ _ _"],
) -> tuple[float, float, float]:
    """Return the mean log-likelihood of the test images in nats, its standard error, and the window width.

    The density is a mixture of equal Gaussians around the samples, with pixels in [0, 1]. Its width is the value in
    `SIGMAS` that maximizes the likelihood of the validation images. Raises CardiganError for unequal shapes or too few
    images.
    """
    if not samples.shape[1:] == validation.shape[1:] == test.shape[1:]:
        raise CardiganError(
            f"Samples of {tuple(samples.shape[1:])} and real images of {tuple(test.shape[1:])}: expected equal shapes."
        )
    if len(samples) == 0 or len(validation) == 0:
        raise CardiganError(
            f"{len(samples)} samples and {len(validation)} validation images: expected at least 1 of each."
        )
    validation_distances = squared_distances(_flatten(validation), _flatten(samples))
    sigma = max(
        SIGMAS, key=lambda width: float(log_likelihoods(validation_distances, width, samples[0].numel()).mean())
    )
    flat_samples = _flatten(samples)
    tile_log_likelihoods = [
        log_likelihoods(squared_distances(_flatten(tile), flat_samples), sigma, samples[0].numel())
        for tile in test.split(TILE_SIZE)
    ]
    return *mean_with_error(torch.cat(tile_log_likelihoods)), sigma


def log_likelihoods(squared: Float[Tensor, "image sample"], sigma: float, dimensions: int) -> Float64[Tensor, " image"]:
    """Return log p of each image from its squared distances to the samples."""
    exponents = (squared * (-0.5 / sigma**2)).logsumexp(1).double()
    return exponents - math.log(squared.shape[1]) - 0.5 * dimensions * math.log(2 * math.pi * sigma**2)


def _flatten(pixels: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n value"]:
    """Return pixels in [0, 1] as float32, one row per image.

    Distances of about 50 are then accurate to 1e-4, far below the error of the mean.
    """
    return pixels.flatten(1).float() / 255
