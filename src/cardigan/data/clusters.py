"""Clusters of similar images that take the place of classes where images have none.

A class-conditional generator covers more of the variety of its images than an unconditional one, also where the classes
are clusters found by an algorithm (Liu et al. 2020, Diverse Image Generation via Self-Conditioned GANs,
arXiv:2006.10728). Here the clusters are found once, before training, on coarse pixels.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import interpolate

from cardigan.data.source import ImageSource
from cardigan.errors import CardiganError
from cardigan.rng import stream
from cardigan.shapes import Labels, StoredPixels

MIN_IMAGES_PER_CLUSTER = 8
MAX_VALUES, NUM_COMPONENTS = 1_024, 40
"""Images are averaged to at most this many numbers, as 32x32 gray pixels are, and compared by this many principal
components."""
MAX_FITTED_IMAGES, ITERATIONS = 60_000, 15
"""Images that k-means is fitted on, and its iterations."""
CHUNK = 4_096
"""Images compared with all clusters at a time."""

Points = Float64[Tensor, "image component"]
Centers = Float64[Tensor, "cluster component"]


@dataclass(frozen=True)
class Clusters:
    """What assigns images to clusters: the mean of coarse images, their principal components, and the centers."""

    mean: Float64[Tensor, " value"]
    components: Float64[Tensor, "value component"]
    centers: Centers

    def nearest(self, pixels: StoredPixels) -> Labels:
        """Return the cluster whose center is nearest to each image, from 0 on."""
        return nearest_centers(project(pixels, self.mean, self.components), self.centers)


def with_clusters(
    train: ImageSource, holdout: ImageSource | None, count: int
) -> tuple[ImageSource, ImageSource | None]:
    """Return both sources with `count` clusters of the training images as their classes.

    Raises CardiganError if there would be fewer than `MIN_IMAGES_PER_CLUSTER` training images in each on average.
    """
    most = len(train.pixels) // MIN_IMAGES_PER_CLUSTER
    if count > most:
        raise CardiganError(
            f"data.clusters is {count:,} and there are {len(train.pixels):,} images to train on: expected at most "
            f"{most:,}, so that a cluster has {MIN_IMAGES_PER_CLUSTER} images on average."
        )
    clusters = find_clusters(train.pixels, count)

    def relabeled(source: ImageSource) -> ImageSource:
        fingerprint = f"{source.fingerprint} {count} clusters" if source.fingerprint else ""
        labels = clusters.nearest(source.pixels)
        return replace(source, labels=labels, num_classes=count, class_names=(), fingerprint=fingerprint)

    return relabeled(train), None if holdout is None else relabeled(holdout)


def find_clusters(pixels: StoredPixels, count: int) -> Clusters:
    """Return clusters of these images, found by k-means on their principal components.

    Depends on the images and `count` only. Computed in float64, so that machines that round differently find the same
    clusters.
    """
    chosen = torch.randperm(len(pixels), generator=stream(0, "clusters", 0))[: max(MAX_FITTED_IMAGES, count)]
    size = coarse_values(pixels[:1]).shape[1]
    mean, products = torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
    for part in chosen.split(CHUNK):
        values = coarse_values(pixels[part])
        mean, products = mean + values.sum(0) / len(chosen), products + values.T @ values / len(chosen)
    covariance = products - mean[:, None] * mean
    components = torch.linalg.eigh(covariance).eigenvectors[:, -NUM_COMPONENTS:]
    return Clusters(mean, components, k_means(project(pixels[chosen], mean, components), count))


def coarse_values(pixels: StoredPixels) -> Float64[Tensor, "image value"]:
    """Return coarse images from 0 to 1 as vectors. Colors are multiplied by the opacity, if there is one."""
    images = pixels.double() / 255
    if images.shape[1] == 4:
        images = torch.cat([images[:, :3] * images[:, 3:], images[:, 3:]], dim=1)
    largest = math.isqrt(MAX_VALUES // images.shape[1])
    height, width = (min(side, largest) for side in images.shape[2:])
    return interpolate(images, size=(height, width), mode="area").flatten(1)


def project(
    pixels: StoredPixels, mean: Float64[Tensor, " value"], components: Float64[Tensor, "value component"]
) -> Points:
    """Return the principal components of coarse images."""
    return torch.cat([(coarse_values(part) - mean) @ components for part in pixels.split(CHUNK)])


def nearest_centers(points: Points, centers: Centers) -> Labels:
    return torch.cat([torch.cdist(part, centers).argmin(1) for part in points.split(CHUNK)])


def k_means(points: Points, count: int) -> Centers:
    """Return the centers of `count` clusters (Lloyd's algorithm), begun at the first points."""
    centers = points[:count].clone()
    for _ in range(ITERATIONS):
        labels = nearest_centers(points, centers)
        sizes = torch.bincount(labels, minlength=count)[:, None]
        sums = torch.zeros_like(centers).index_add_(0, labels, points)
        centers = torch.where(sizes > 0, sums / sizes.clamp(min=1), centers)
    return centers
