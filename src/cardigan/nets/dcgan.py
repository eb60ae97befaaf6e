"""DCGAN (Radford, Metz, Chintala 2015, arXiv:1511.06434), unconditional or class-conditional.

Images have any size of at least 8x8, square or not. They are halved down to sides of 4 to 7, or `depth` times. With
64x64, width 128 and `batch-no-scale` normalization, this is the network of the MXNet tutorial. Knows nothing of losses
or training.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from cardigan.config_parts import NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.errors import unknown
from cardigan.nets.conditioning import ConditionalLatent, Projection, one_hot_labels
from cardigan.nets.convolution import FastConv2d, FastConvTranspose2d
from cardigan.nets.interface import Discriminator, Generator
from cardigan.nets.minibatch_stddev import append_minibatch_stddev
from cardigan.nets.normalization import initialize_weights, normalization
from cardigan.nets.spectral import apply_spectral_norm
from cardigan.nets.stages import Stage, channels_per_stage, stages
from cardigan.nets.upsampling import UpsampleConv2d
from cardigan.shapes import ClassWeights, Images, Labels, Latents, Logits

UPSAMPLINGS = ("transposed", "light")


class DcganGenerator(Generator):
    """Transposed convolutions from 1x1 to the image size, with ReLU between them and tanh at the end.

    With the option `upsampling` of light, each enlarges by nearest neighbor and a 3x3 convolution instead, which leaves
    no checkerboard.
    """

    feature_modules = "norms"
    accepts_class_weights = True
    latent_layer, image_layers, stage_lists = "from_latent", ("up_convs.-1",), {"up_convs": 1, "norms": 0}

    def __init__(self, config: NetworkConfig, latent_size: int, spec: ImageSpec) -> None:
        super().__init__()
        levels = stages(spec.height, spec.width, config.depth, "generator")[::-1]
        channels = channels_per_stage(config.width, len(levels))[::-1]
        bias = config.normalization == "none"
        self.latent = ConditionalLatent(
            latent_size, spec.num_classes, learned_embedding=config.conditioning != "one-hot"
        )
        self.from_latent = FastConvTranspose2d(self.latent.out_features, channels[0], levels[0].small_size, bias=bias)
        self.up_convs = nn.ModuleList(
            upsampling_conv(str(config.options["upsampling"]), wide_channels, narrow_channels, level, bias)
            for wide_channels, narrow_channels, level in zip(
                channels, [*channels[1:], spec.channels], levels, strict=True
            )
        )
        self.norms = nn.ModuleList(normalization(config.normalization, count) for count in channels)
        initialize_weights(self, config.initialization)
        if config.spectral_norm:
            apply_spectral_norm(self)

    def forward(self, z: Latents, labels: Labels | ClassWeights | None = None) -> Images:
        hidden = self.from_latent(self.latent(z, labels)[:, :, None, None])
        for norm, up_conv in zip(self.norms, self.up_convs, strict=True):
            hidden = up_conv(torch.relu(norm(hidden)))
        return torch.tanh(hidden)


def upsampling_conv(upsampling: str, in_channels: int, out_channels: int, level: Stage, bias: bool) -> nn.Module:
    """Return a layer that enlarges maps by one stage; raises CardiganError for an unknown way of upsampling."""
    if upsampling not in UPSAMPLINGS:
        raise unknown("generator.options.upsampling", upsampling, UPSAMPLINGS)
    if upsampling == "light":
        return UpsampleConv2d(in_channels, out_channels, level, bias)
    return FastConvTranspose2d(
        in_channels, out_channels, level.kernel, level.stride, 1, level.output_padding, bias=bias
    )


class DcganDiscriminator(Discriminator):
    """Strided convolutions from the image to one logit, LeakyReLU(0.2) between them, normalized from the second on.

    With `projection` conditioning, the logit also contains the projection of the last features, summed over the image,
    on the class embedding.
    """

    feature_modules = "norms"
    image_layers, stage_lists = ("down_convs.0",), ("down_convs", "norms")

    def __init__(self, config: NetworkConfig, spec: ImageSpec) -> None:
        super().__init__()
        levels = stages(spec.height, spec.width, config.depth, "discriminator")
        channels = channels_per_stage(config.width, len(levels))
        bias = config.normalization == "none"
        learned_embedding = config.conditioning != "one-hot"
        self.num_class_planes = 0 if learned_embedding else spec.num_classes
        self.stddev_group_size = config.minibatch_stddev
        self.down_convs = nn.ModuleList(
            FastConv2d(narrow_channels, wide_channels, level.kernel, level.stride, padding=1, bias=bias)
            for narrow_channels, wide_channels, level in zip(
                [spec.channels + self.num_class_planes, *channels], channels, levels, strict=False
            )
        )
        self.norms = nn.ModuleList(
            normalization(config.normalization if depth else "none", count) for depth, count in enumerate(channels)
        )
        self.head = FastConv2d(channels[-1] + (self.stddev_group_size > 0), 1, levels[-1].small_size, bias=bias)
        self.projection = Projection(channels[-1], spec.num_classes) if learned_embedding and spec.num_classes else None
        initialize_weights(self, config.initialization)
        if config.spectral_norm:
            apply_spectral_norm(self)

    def forward(self, images: Images, labels: Labels | None = None) -> Logits:
        hidden = self._with_class_planes(images, labels) if self.num_class_planes else images
        for norm, down_conv in zip(self.norms, self.down_convs, strict=True):
            hidden = leaky_relu(norm(down_conv(hidden)), 0.2)
        logits = self.head(append_minibatch_stddev(hidden, self.stddev_group_size)).flatten().float()
        return logits + self.projection(hidden.float().sum(dim=(2, 3)), labels) if self.projection else logits

    def _with_class_planes(self, images: Images, labels: Labels | None) -> Float[Tensor, "batch planes height width"]:
        """Append one plane per class: 1 for the image's class, 0 for the others (the paper's MNIST protocol)."""
        planes = one_hot_labels(labels, self.num_class_planes).to(images.dtype)[:, :, None, None]
        return torch.cat([images, planes.expand(-1, -1, *images.shape[2:])], dim=1)
