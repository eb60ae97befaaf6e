"""The interfaces of generator and discriminator: modules whose only public method is `forward`.

A discriminator may have several heads, each with its own logit. Losses are means over images and heads; everything
that needs one number per image takes `mean_over_heads`.

Labels are required if the networks are class-conditional (`ImageSpec.num_classes > 0`), and not allowed otherwise.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from cardigan.shapes import FeatureVectors, Images, Labels, Latents, Logits


class Generator(nn.Module):
    """Maps latents to images."""

    feature_modules: ClassVar[str] = ""
    """The attribute that holds the modules whose outputs are the network's features, in the order computed: feature
    maps before their activation, or units. What the studio and `cardigan.explore` show; without it they decline."""
    accepts_class_weights = False
    """Whether `labels` may also be `ClassWeights`. Otherwise images get the class with the largest weight."""
    latent_layer: ClassVar[str] = ""
    """The name of the first layer, which reads latent and class."""
    image_layers: tuple[str, ...] = ()
    """The names of the layers that draw the image's channels; the last of a list is -1. For `nets/transfer.py`."""
    stage_lists: ClassVar[Mapping[str, int]] = {}
    """Attributes that are lists with an entry for each map size, smallest first, and the stage of their first entry.
    Stage 0 has the smallest maps."""

    def output_parts(self, layer: str) -> int:
        """Return of how many equal parts the outputs of this layer consist, such as values and gates."""
        return 1

    def stage_of(self, name: str) -> int | None:
        """Return the stage that a parameter belongs to, smallest maps first; None for what draws the image."""
        attribute, _, rest = name.partition(".")
        if attribute in self.stage_lists:
            index = int(rest.partition(".")[0])
            last = len(getattr(self, attribute)) - 1
            draws = any(layer in {f"{attribute}.{index}", f"{attribute}.-1"} for layer in self.image_layers)
            return None if draws and index == last else self.stage_lists[attribute] + index
        return 0 if attribute == "latent" or _is_in(name, (self.latent_layer,)) else None

    @abstractmethod
    def forward(self, z: Latents, labels: Labels | None = None) -> Images: ...


class Discriminator(nn.Module):
    """Maps images to one logit per image, [batch], or per image and head, [batch, heads]. Larger means more real."""

    feature_modules: ClassVar[str] = ""
    """As in `Generator`."""
    image_layers: tuple[str, ...] = ()
    """The names of the layers that read the image's channels. For `nets/transfer.py`."""
    stage_lists: ClassVar[tuple[str, ...]] = ()
    """Attributes that are lists of what is computed at each size, the smallest maps last."""

    def output_parts(self, layer: str) -> int:
        """As in `Generator`."""
        return 1

    def stage_of(self, name: str) -> int | None:
        """Return the stage that a parameter belongs to, counted from the image; None for what computes the logit."""
        attribute, _, rest = name.partition(".")
        if attribute in self.stage_lists:
            return int(rest.partition(".")[0])
        return 0 if _is_in(name, self.image_layers) else None

    @abstractmethod
    def forward(self, images: Images, labels: Labels | None = None) -> Logits: ...


class FeatureDiscriminator(Discriminator):
    """A discriminator whose first layers are frozen.

    Training computes the features of a batch once, for the updates of both networks. Penalties are taken with respect
    to the features, so that they need no second derivative of the frozen layers.
    """

    couples_images = True
    """Whether the logits of an image depend on the other images of its batch, as with batch normalization. If not, real
    and generated images may pass together, which is faster."""
    features_depend_on_batch = True
    """Whether the features of an image depend on the other images of its batch, or on its position in it. If not, those
    of training images are computed once."""

    @abstractmethod
    def features(self, images: Images, first: int = 0) -> FeatureVectors:
        """Return what the frozen layers compute, fp32.

        `first` is the position of the first image in the whole batch, which several processes and microbatches share.
        """

    @abstractmethod
    def score(self, features: FeatureVectors, labels: Labels | None = None) -> Logits:
        """Return the logits for these features."""

    def forward(self, images: Images, labels: Labels | None = None) -> Logits:
        return self.score(self.features(images), labels)


def _is_in(parameter: str, layers: Sequence[str]) -> bool:
    """Return whether a parameter belongs to one of these layers."""
    return any(layer and parameter.startswith(f"{layer}.") for layer in layers)


def mean_over_heads(logits: Logits) -> Float[Tensor, " batch"]:
    """Return one logit per image: the mean over the heads, if there are several."""
    return logits.flatten(1).mean(dim=1) if logits.dim() > 1 else logits
