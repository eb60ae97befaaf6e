"""What a generator and a discriminator are: modules with no public method but `forward`.

Labels are given exactly when the networks were built for classes (`ImageSpec.classes > 0`).
"""

from abc import abstractmethod

from torch import nn

from cardigan.shapes import Images, Labels, Latents, Logits


class Generator(nn.Module):
    """Turns random numbers into pictures."""

    @abstractmethod
    def forward(self, z: Latents, labels: Labels | None = None) -> Images: ...


class Discriminator(nn.Module):
    """Tells real pictures from generated ones; one logit a picture, larger means more real."""

    @abstractmethod
    def forward(self, images: Images, labels: Labels | None = None) -> Logits: ...
