"""Outlier scores and linear probe errors of a source's images, from a run's discriminator features.

Opens sources; writes no file.
"""

import contextlib
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cardigan.config import Config
from cardigan.config_parts import DataConfig
from cardigan.data.builtin import BUILTIN_DATASETS
from cardigan.data.cache import decode_in_memory
from cardigan.data.datasets import open_datasets, reader_from_config
from cardigan.data.decoding import decode_spec
from cardigan.data.formats.labels import encode_labels
from cardigan.data.reader import Reader, UnreadableImage, evenly_spaced_indices
from cardigan.data.source_names import absolute_source
from cardigan.data.webdataset.shards import is_shards
from cardigan.errors import CardiganError
from cardigan.explore.features import NUM_NEIGHBORS, discriminator_features, linear_probe_error, local_outlier_factor
from cardigan.explore.preprocessing import preprocess_image
from cardigan.models.run_networks import RunNetworks
from cardigan.pixels import encode
from cardigan.rng import stream
from cardigan.shapes import Pixels

MAX_IMAGES = 10_000
"""Default maximum number of images from either source. The cost is quadratic."""
MIN_LABELED = 50
TEST_DIVISOR = 5
"""One labeled image in this many tests the classifier that is fitted to the others."""


@dataclass(frozen=True)
class ProbeImages:
    """Images to inspect, in a run's shape."""

    titles: list[str]
    pixels: Pixels
    labels: Int64[Tensor, " _"] | None
    """-1 for an image without a label; None if no image has one."""
    classes: int


@dataclass(frozen=True)
class ProbeResult:
    """Scores of the images by D's features."""

    images: ProbeImages
    outlier_factors: Float[Tensor, " _"]
    compared_with: str
    linear_probe_error: float | None
    """Test error of a linear classifier on D's features, 0..1; None without enough labels."""
    pixel_probe_error: float | None
    """The same on raw pixels."""
    num_labeled: int
    """Images that the classifier was fitted to."""


def probe_discriminator(
    networks: RunNetworks, source: str, labels: str = "", max_images: int = MAX_IMAGES
) -> ProbeResult:
    """Return outlier scores and probe errors of up to `max_images` images of a source.

    The score is `features.local_outlier_factor` in D's features, with the run's training images as reference. If the
    source is the training source, each image is compared with the others.
    Raises CardiganError for sources without random access, and for a D whose features depend on the class.
    """
    config = networks.snapshot.config
    images = load_probe_images(config, source, labels, max_images)
    image_features = discriminator_features(networks, images.pixels)
    is_training_source = absolute_source(source) == config.data.source and source not in BUILTIN_DATASETS
    if is_training_source:
        outlier_factors, compared_with = (
            local_outlier_factor(image_features, image_features, same_rows=True),
            "each other",
        )
    else:
        training_images = load_training_images(config, max_images)
        outlier_factors, compared_with = (
            local_outlier_factor(discriminator_features(networks, training_images), image_features),
            f"{len(training_images):,} images of {config.data.source}",
        )
    return ProbeResult(images, outlier_factors, compared_with, *_linear_probe_errors(image_features, images))


def load_probe_images(config: Config, source: str, labels: str, max_images: int) -> ProbeImages:
    """Return a source's images in a run's shape; `max_images` evenly spaced ones if it has more.

    Built-in digits come from the test set.
    """
    if max_images < NUM_NEIGHBORS + 1:
        raise CardiganError(f"max_images is {max_images}: expected at least {NUM_NEIGHBORS + 1}.")
    if source in BUILTIN_DATASETS:
        digits = BUILTIN_DATASETS[source]("test")
        count = min(max_images, len(digits))
        indices = torch.tensor(evenly_spaced_indices(count, len(digits)))
        pixels = encode(digits.images_at(indices, config.data))
        return ProbeImages(
            [f"test digit {index}" for index in indices.tolist()], pixels, digits.labels[indices], digits.num_classes
        )
    if is_shards(source):
        raise CardiganError(f"{source} contains shards, which have no random access: give a folder, archive or table.")
    data = replace(config.data, source=absolute_source(source), labels=labels, num_classes=0)
    reader = reader_from_config(data)
    pixels, entries = _decode_entries(
        reader,
        replace(data, source=config.data.source),
        evenly_spaced_indices(min(max_images, len(reader)), len(reader)),
    )
    numbers, names = (None, []) if reader.labels is None else encode_labels(reader.labels)
    label_tensor = (
        None
        if numbers is None
        else torch.tensor([-1 if numbers[entry] is None else numbers[entry] for entry in entries])
    )
    return ProbeImages([reader.entry_name(entry) for entry in entries], pixels, label_tensor, len(names))


def _decode_entries(reader: Reader, data: DataConfig, entries: list[int]) -> tuple[Pixels, list[int]]:
    """Return a reader's images in the shape that `data` describes, and the entries that could be read."""
    if data.source not in BUILTIN_DATASETS:
        decoded = decode_in_memory(reader, decode_spec(data), data.num_workers, entries=entries)
        return decoded.pixels.contiguous(), decoded.entries
    rows, readable = [], []
    for entry in entries:
        with contextlib.suppress(UnreadableImage):
            rows.append(preprocess_image(reader.read(entry), data))
            readable.append(entry)
    if len(readable) < 2:
        raise CardiganError(f"{reader.name} has {len(readable)} readable images: expected at least 2.")
    return torch.cat(rows), readable


def load_training_images(config: Config, max_images: int) -> Pixels:
    """Return up to `max_images` evenly spaced training images of a run."""
    source = open_datasets(config.data).train
    count = min(max_images, len(source.pixels))
    indices = torch.tensor(evenly_spaced_indices(count, len(source.pixels)))
    return encode(source.images_at(indices, config.data))


def _linear_probe_errors(
    image_features: Float[Tensor, "_ _"], images: ProbeImages
) -> tuple[float | None, float | None, int]:
    if images.labels is None or images.classes < 2:
        return None, None, 0
    labeled = (images.labels >= 0).nonzero().flatten()
    if len(labeled) < MIN_LABELED:
        return None, None, 0
    labeled = labeled[torch.randperm(len(labeled), generator=stream(0, "probe", 0))]
    test_rows, train_rows = labeled[: len(labeled) // TEST_DIVISOR], labeled[len(labeled) // TEST_DIVISOR :]
    errors = [
        linear_probe_error(
            rows[train_rows], images.labels[train_rows], rows[test_rows], images.labels[test_rows], images.classes
        )
        for rows in (image_features, images.pixels.flatten(1).float() / 127.5 - 1)
    ]
    return errors[0], errors[1], len(train_rows)
