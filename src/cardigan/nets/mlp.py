"""The networks of the first GAN (Goodfellow et al. 2014, arXiv:1406.2661, section 5): no convolution, any size.

Left out is D's dropout: its masks would be randomness that depends on more than the step. Knows nothing of losses or training.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cardigan.config import NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.nets.interface import Discriminator, Generator
from cardigan.nets.parts import LatentWithClass, Verdict, class_rows, with_minibatch_deviation
from cardigan.nets.spectral import normalise_spectrally
from cardigan.shapes import Images, Labels, Latents, Logits

DEPTH = 2
"""Hidden layers, where none are asked for."""
PIECES = 5
"""Linear functions of which a maxout unit is the largest; with a width of 1200, D has the first GAN's 240 units a layer."""


class MlpGenerator(Generator):
    """`depth` hidden layers of `width` ReLU units, tanh at the end."""

    def __init__(self, config: NetworkConfig, latent_size: int, spec: ImageSpec) -> None:
        super().__init__()
        self.picture = (spec.channels, spec.height, spec.width)
        self.latent = LatentWithClass(latent_size, spec.classes, learned=config.conditioning != "one-hot")
        depth = config.depth or DEPTH
        inputs = [self.latent.size, *[config.width] * (depth - 1)]
        self.hidden = nn.ModuleList(nn.Linear(size, config.width) for size in inputs)
        self.draw = nn.Linear(config.width, spec.channels * spec.height * spec.width)
        if config.spectral:
            normalise_spectrally(self)

    def forward(self, z: Latents, labels: Labels | None = None) -> Images:
        hidden = self.latent(z, labels)
        for layer in self.hidden:
            hidden = torch.relu(layer(hidden))
        return torch.tanh(self.draw(hidden)).unflatten(1, self.picture)


class Maxout(nn.Module):
    """Units that are the largest of five linear functions each (arXiv:1302.4389, section 2)."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.pieces = nn.Linear(inputs, units * PIECES)

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch units"]:
        return self.pieces(x).unflatten(1, (-1, PIECES)).amax(dim=2)


class MlpDiscriminator(Discriminator):
    """`depth` hidden layers of `width` linear functions each, in fives: a fifth as many maxout units (at least one).

    Classes are told as ones and zeros beside the pixels, or by asking the last features how well they suit one.
    """

    def __init__(self, config: NetworkConfig, spec: ImageSpec) -> None:
        super().__init__()
        units, depth = max(1, config.width // PIECES), config.depth or DEPTH
        learned = config.conditioning != "one-hot"
        self.ones = 0 if learned else spec.classes
        self.group = config.minibatch_deviation
        inputs = [spec.channels * spec.height * spec.width + self.ones, *[units] * (depth - 1)]
        self.hidden = nn.Sequential(*(Maxout(size, units) for size in inputs))
        self.verdict = Verdict(units + (self.group > 0), spec.classes if learned else 0)
        if config.spectral:
            normalise_spectrally(self)

    def forward(self, images: Images, labels: Labels | None = None) -> Logits:
        pixels = images.flatten(1)
        seen = torch.cat([pixels, class_rows(labels, self.ones).to(pixels.dtype)], dim=1) if self.ones else pixels
        return self.verdict(with_minibatch_deviation(self.hidden(seen), self.group), labels)
