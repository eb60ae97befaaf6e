"""PacGAN (Lin, Khetan, Fanti, Oh 2018, arXiv:1712.04086), which gives D packs of images.

D sees how much images of a pack differ, so it detects a generator that produces few different images. Knows no
architecture.
"""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from cardigan.data.source import ImageSpec
from cardigan.errors import CardiganError
from cardigan.nets.interface import Discriminator
from cardigan.shapes import Images, Labels


def pac_spec(spec: ImageSpec, pac: int) -> ImageSpec:
    """Return the image spec of the inner discriminator: the channels of a whole pack (section 3, figure 4)."""
    return replace(spec, channels=spec.channels * pac)


class PacDiscriminator(Discriminator):
    """Stacks consecutive images of the batch along their channels and returns one logit per pack."""

    def __init__(self, inner: Discriminator, pac: int) -> None:
        super().__init__()
        self.inner = inner
        self.pac = pac

    def forward(self, images: Images, labels: Labels | None = None) -> Float[Tensor, " pack"]:
        if len(images) % self.pac:
            raise CardiganError(f"{len(images)} images in packs of {self.pac}: expected a multiple of {self.pac}.")
        return self.inner(images.reshape(-1, self.pac * images.shape[1], *images.shape[2:]))
