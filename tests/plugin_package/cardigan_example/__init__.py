"""A plug-in with one line for each table."""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from cardigan.backbones import BACKBONES
from cardigan.data import SOURCE_FORMATS, Reader, SourceFormat, fingerprint, without_column
from cardigan.exports import FORMATS, ExportFormat
from cardigan.latents import LATENTS
from cardigan.metrics import EXTRACTORS, METRICS, ExtractorBuilder, FeatureExtractor, MetricGroup, jackknife
from cardigan.models import sample_pixels
from cardigan.nets import NETS, Architecture, Discriminator, Generator
from cardigan.objective import LOSSES, OPERATIONS, PENALTIES, Operation, Penalty, is_applied
from cardigan.training import LEARNING_RATE_SCHEDULES, OPTIMIZERS


class FlatGenerator(Generator):
    def __init__(self, config, latent_size, spec):
        super().__init__()
        self.shape = (spec.channels, spec.height, spec.width)
        self.layer = nn.Linear(latent_size, spec.channels * spec.height * spec.width)

    def forward(self, z, labels=None):
        return torch.tanh(self.layer(z)).reshape(-1, *self.shape)


class FlatDiscriminator(Discriminator):
    def __init__(self, config, spec):
        super().__init__()
        pixels = spec.channels * spec.height * spec.width
        self.layers = nn.Sequential(nn.Linear(pixels, config.width), nn.ReLU(), nn.Linear(config.width, 1))

    def forward(self, images, labels=None):
        return self.layers(images.flatten(1)).flatten().float()


class EdgeTaps(nn.Module):
    """Fixed differences between neighbors, at two sizes."""

    def __init__(self):
        super().__init__()
        self.edges = nn.Conv2d(3, 4, 2, 2, bias=False)
        nn.init.constant_(self.edges.weight, 0.25)
        self.edges.weight.data[1:, :, 0] *= -1

    def forward(self, images):
        fine = self.edges(images)
        return [fine, nn.functional.avg_pool2d(fine, 4)]


def triangular(shape, generator):
    """The sum of two uniform numbers, from -1 to 1."""
    return torch.rand(shape, generator=generator) - torch.rand(shape, generator=generator)


def slow_sgd(parameters, learning_rate, config, options):
    return torch.optim.SGD(parameters, lr=learning_rate, fused=True)


def negative(images, draws, p):
    """Change black to white."""
    return torch.where(is_applied(draws, p)[:, None, None, None], -images, images)


def raw_reader(path):
    """The images of a file of 16x16 bytes an image."""
    images = np.memmap(path, np.uint8, "r").reshape(-1, 16, 16)
    signature = fingerprint([path.stat().st_size, path.stat().st_mtime_ns])
    return Reader(str(path), len(images), str, lambda index: np.array(images[index]), signature)


def quadrant_extractor(image_shape, weights):
    """The mean of each quarter of an image."""
    return FeatureExtractor(
        "example-quadrants",
        "fd_example_quadrants",
        "",
        4 * image_shape[0],
        "none",
        lambda pixels: adaptive_avg_pool2d(pixels.float(), 2).flatten(1),
    )


def mean_distance(inputs):
    """The distance between the mean features of samples and of real images."""
    real = inputs.reference_features.mean(0)
    value = jackknife(inputs.features, lambda features: float((features.mean(0) - real).norm()))
    return {"example-mean-distance": inputs.metric_value(value, "jackknife over samples")}


def array_writer(snapshot, settings):
    """Write 16 images as an array."""
    pixels = sample_pixels(snapshot, [(settings.seed, number) for number in range(16)]).numpy()

    def write(path, card):
        with path.open("wb") as file:
            np.save(file, pixels)
        return 0.0 if np.array_equal(np.load(path), pixels) else 1.0

    return write


LOSSES["example-loss"] = LOSSES["non-saturating"]
PENALTIES["example-drift"] = Penalty(lambda inputs: inputs.real_logits.square().mean())
NETS["example-flat"] = Architecture(FlatGenerator, FlatDiscriminator)
BACKBONES["example-edges"] = EdgeTaps
LATENTS["example-triangular"] = triangular
OPTIMIZERS["example-sgd"] = slow_sgd
LEARNING_RATE_SCHEDULES["example-halving"] = lambda config, images_seen: 0.5 ** (images_seen / 32)
OPERATIONS["example-negative"] = Operation(1, negative)
SOURCE_FORMATS["example-raw"] = SourceFormat("raw images", (".raw16",), without_column("raw images", raw_reader))
EXTRACTORS["example-quadrants"] = ExtractorBuilder(quadrant_extractor)
METRICS["example-mean"] = MetricGroup(mean_distance)
FORMATS["example-array"] = ExportFormat(
    "array of 16 images",
    (".npy",),
    array_writer,
    ("float32",),
    tolerance=0.0,
    usage='Open it with `numpy.load("{name}")`.',
)
