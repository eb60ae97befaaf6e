"""A plug-in with one line for each table: loss, penalty, network, latent distribution, optimizer."""

import torch
from torch import nn

from cardigan.latents import LATENTS
from cardigan.nets import NETS, Architecture, Discriminator, Generator
from cardigan.objective import LOSSES, PENALTIES, Penalty
from cardigan.training import OPTIMIZERS


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


def triangular(shape, generator):
    """The sum of two uniform numbers, from -1 to 1."""
    return torch.rand(shape, generator=generator) - torch.rand(shape, generator=generator)


def slow_sgd(parameters, learning_rate, config, options):
    return torch.optim.SGD(parameters, lr=learning_rate, fused=True)


LOSSES["example-loss"] = LOSSES["non-saturating"]
PENALTIES["example-drift"] = Penalty(lambda inputs: inputs.real_logits.square().mean())
NETS["example-flat"] = Architecture(FlatGenerator, FlatDiscriminator)
LATENTS["example-triangular"] = triangular
OPTIMIZERS["example-sgd"] = slow_sgd
