"""Frozen features of training images, computed once for each image instead of once in each epoch.

Only where nothing changes an image on its way to the discriminator. The results are the same to the last bit.
"""

from dataclasses import replace

import torch

from cardigan.data.batches import Batch, Batches
from cardigan.nets.interface import Discriminator, FeatureDiscriminator
from cardigan.shapes import FeatureVectors, Images
from cardigan.training.ada import Augmentation
from cardigan.training.devices import Devices

MAX_BYTES = 2**30
"""Features of all images may take this much memory: 6,200 RGB images of 64x64 with EfficientNet-Lite0."""
NUM_TRIED = 16
"""Images whose features are computed in two orders, to see whether they are the same to the last bit."""


class RealFeatures:
    """The features known so far, by the position of the image in its source."""

    def __init__(self, discriminator: FeatureDiscriminator, shape: tuple[int, int], devices: Devices) -> None:
        """`shape`: the number of images and of features."""
        self.discriminator, self.devices = discriminator, devices
        self.known = torch.zeros(shape[0], dtype=torch.bool)
        self.features = torch.empty(shape)  # takes memory only as it is filled

    def add_to(self, batch: Batch, augmentation: Augmentation | None) -> Batch:
        """Return the batch with the features of its images, unless they are augmented or not held in memory."""
        indices = batch.indices
        if indices is None or (augmentation is not None and not augmentation.is_off(self.devices)):
            return batch
        if not self.known[indices].all():
            self.features[indices] = compute_features(self.discriminator, batch.images, self.devices)
            self.known[indices] = True
        return replace(batch, features=self.features[indices])


def find_real_features(discriminator: Discriminator, batches: Batches, devices: Devices) -> RealFeatures | None:
    """Return what keeps the features of this source's images, or None where they are not kept.

    That is without frozen layers, where features depend on the other images of the batch, where they take more than
    `MAX_BYTES`, and on a GPU, where steps are recorded.
    """
    if (
        devices.is_async
        or devices.device.type != "cpu"
        or not isinstance(discriminator, FeatureDiscriminator)
        or discriminator.features_depend_on_batch
    ):
        return None
    images = batches.batch_at(0, NUM_TRIED).images
    features = compute_features(discriminator, images, devices)
    # No library promises that an image's features are rounded alike at every position of a batch. A resumed run starts
    # with other batches, so they must be.
    is_reproducible = torch.equal(compute_features(discriminator, images.flip(0), devices).flip(0), features)
    if not is_reproducible or len(batches.source) * features[0].nbytes > MAX_BYTES:
        return None
    return RealFeatures(discriminator, (len(batches.source), features.shape[1]), devices)


@torch.no_grad()
def compute_features(discriminator: FeatureDiscriminator, images: Images, devices: Devices) -> FeatureVectors:
    with devices.autocast():
        return discriminator.features(images)
