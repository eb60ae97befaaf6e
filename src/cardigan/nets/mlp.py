"""The fully connected networks of the first GAN (Goodfellow et al. 2014, arXiv:1406.2661, section 5), for any size.

D has no dropout: the masks would be randomness that depends on more than the step. Knows nothing of losses or training.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cardigan.config_parts import NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.nets.conditioning import ConditionalLatent, Head, one_hot_labels
from cardigan.nets.interface import Discriminator, Generator
from cardigan.nets.minibatch_stddev import append_minibatch_stddev
from cardigan.nets.spectral import apply_spectral_norm
from cardigan.shapes import ClassWeights, Images, Labels, Latents, Logits

DEFAULT_DEPTH = 2
"""Hidden layers, unless the config sets a depth."""
MAXOUT_PIECES = 5
"""Linear functions per maxout unit. With a width of 1200, D has 240 units per layer, as in the paper."""


class MlpGenerator(Generator):
    """`depth` hidden layers of `width` ReLU units, with tanh at the end."""

    feature_modules = "hidden"
    accepts_class_weights = True
    latent_layer, image_layers = "hidden.0", ("to_image",)

    def __init__(self, config: NetworkConfig, latent_size: int, spec: ImageSpec) -> None:
        super().__init__()
        self.image_shape = (spec.channels, spec.height, spec.width)
        self.latent = ConditionalLatent(
            latent_size, spec.num_classes, learned_embedding=config.conditioning != "one-hot"
        )
        depth = config.depth or DEFAULT_DEPTH
        inputs = [self.latent.out_features, *[config.width] * (depth - 1)]
        self.hidden = nn.ModuleList(nn.Linear(size, config.width) for size in inputs)
        self.to_image = nn.Linear(config.width, spec.channels * spec.height * spec.width)
        if config.spectral_norm:
            apply_spectral_norm(self)

    def forward(self, z: Latents, labels: Labels | ClassWeights | None = None) -> Images:
        hidden = self.latent(z, labels)
        for layer in self.hidden:
            hidden = torch.relu(layer(hidden))
        return torch.tanh(self.to_image(hidden)).unflatten(1, self.image_shape)


class Maxout(nn.Module):
    """A layer whose units are the maximum of five linear functions each (arXiv:1302.4389, section 2)."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.pieces = nn.Linear(in_features, out_features * MAXOUT_PIECES)

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch units"]:
        return self.pieces(x).unflatten(1, (-1, MAXOUT_PIECES)).amax(dim=2)


class MlpDiscriminator(Discriminator):
    """`depth` hidden layers of `width` linear functions each, which form `width` / 5 maxout units (at least one).

    Labels enter as a one-hot vector concatenated to the pixels, or as a projection of the last features.
    """

    feature_modules = "hidden"
    image_layers = ("hidden.0.pieces",)

    def __init__(self, config: NetworkConfig, spec: ImageSpec) -> None:
        super().__init__()
        units, depth = max(1, config.width // MAXOUT_PIECES), config.depth or DEFAULT_DEPTH
        learned_embedding = config.conditioning != "one-hot"
        self.num_class_inputs = 0 if learned_embedding else spec.num_classes
        self.stddev_group_size = config.minibatch_stddev
        inputs = [spec.channels * spec.height * spec.width + self.num_class_inputs, *[units] * (depth - 1)]
        self.hidden = nn.Sequential(*(Maxout(size, units) for size in inputs))
        self.head = Head(units + (self.stddev_group_size > 0), spec.num_classes if learned_embedding else 0)
        if config.spectral_norm:
            apply_spectral_norm(self)

    def forward(self, images: Images, labels: Labels | None = None) -> Logits:
        pixels = images.flatten(1)
        inputs = (
            torch.cat([pixels, one_hot_labels(labels, self.num_class_inputs).to(pixels.dtype)], dim=1)
            if self.num_class_inputs
            else pixels
        )
        return self.head(append_minibatch_stddev(self.hidden(inputs), self.stddev_group_size), labels)
