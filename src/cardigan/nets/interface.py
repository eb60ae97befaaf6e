"""The interfaces of generator and discriminator: modules whose only public method is `forward`.

Labels are required if the networks are class-conditional (`ImageSpec.num_classes > 0`), and not allowed otherwise.
"""

from abc import abstractmethod

from torch import nn

from cardigan.shapes import Images, Labels, Latents, Logits


class Generator(nn.Module):
    """Maps latents to images."""

    accepts_class_weights = False
    """Whether `labels` may also be `ClassWeights`. Otherwise images get the class with the largest weight."""

    @abstractmethod
    def forward(self, z: Latents, labels: Labels | None = None) -> Images: ...


class Discriminator(nn.Module):
    """Maps images to one logit per image. Larger means more real."""

    @abstractmethod
    def forward(self, images: Images, labels: Labels | None = None) -> Logits: ...
