"""A discriminator on the features of a frozen pretrained network (Sauer et al. 2021, Projected GANs, arXiv:2111.01007).

Frozen random convolutions mix the features across channels and scales (section 3.2). Small trained heads, one for each
scale, score them, and if asked one more the image itself. Images have 1, 3 or 4 channels: gray is repeated, alpha is
composited. Knows nothing of losses or training.
"""

import math
import re
from itertools import pairwise

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, interpolate, leaky_relu

from cardigan.backbones.taps import find_backbone
from cardigan.checks import require
from cardigan.config_parts import NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.errors import CardiganError
from cardigan.nets.conditioning import Projection
from cardigan.nets.convolution import FastConv2d, autocast_dtype, frozen_doubling_conv
from cardigan.nets.frozen import Frozen
from cardigan.nets.interface import FeatureDiscriminator
from cardigan.nets.minibatch_stddev import append_minibatch_stddev
from cardigan.nets.spectral import apply_spectral_norm
from cardigan.nets.upsampling import BoxKernel
from cardigan.shapes import FeatureVectors, Images, Labels, Logits

FeatureMaps = Float[Tensor, "batch channel height width"]
Positions = Int64[Tensor, " batch"]
"""Of images in the whole batch."""
MIN_INPUT_SIDE, MAX_INPUT_SIDE = 64, 224
"""Images are enlarged until their shorter side has at least 64 pixels, and halved while it has more than 224."""
MAX_LOGIT_SIDE = 4
"""Each head halves its maps until their shorter side is at most this, so that each scale has about as many logits."""
WHITE = (1.0, 1.0, 1.0)
BACKGROUNDS = (
    *(WHITE, (-1.0, -1.0, -1.0), WHITE, (0.0, 0.2, 0.6)),
    *(WHITE, (0.6, 0.1, -0.4), WHITE, (-0.2, 0.7, 0.0)),
)
"""Colors in [-1, 1] that transparent images are composited on, by their position in the whole batch: half of them are
white. Alpha is learned because the same shape is seen on different colors."""


class ProjectedDiscriminator(FeatureDiscriminator):
    """Frozen features and one trained head for each scale; logits of shape [batch, positions of all heads].

    `width` is the number of channels of the finest mixed features; each coarser scale has twice as many. With the
    option `image_width` one more head scores the image itself. It has this many channels at first, and doubles them
    with every second halving, up to `head_width`.
    """

    feature_modules = "last_layers"

    def __init__(self, config: NetworkConfig, spec: ImageSpec) -> None:
        super().__init__()
        options = config.options
        if spec.channels not in {1, 3, 4}:
            raise CardiganError(
                f"data.channels is {spec.channels}, and discriminator.network is projected: expected 1 (gray), 3 (RGB) "
                "or 4 (RGBA)."
            )
        projection = FrozenProjection(str(options["backbone"]), config.width, spec)
        self.projection, self.shapes = Frozen(projection), list(projection.shapes)
        head_width, image_width = int(options["head_width"]), int(options["image_width"])
        require(head_width >= 1, "discriminator.options.head_width", head_width, "at least 1")
        require(image_width >= 0, "discriminator.options.image_width", image_width, "at least 0 (no head on the image)")
        first_widths = [head_width] * len(self.shapes)
        self.sees_image = image_width > 0
        if self.sees_image:
            self.shapes.append((spec.channels, spec.height, spec.width))
            first_widths.append(min(image_width, head_width))
            self.image_layers = (f"heads.{len(self.shapes) - 1}.layers.0",)
        self.heads = nn.ModuleList(
            Head(shape, first_width, head_width, spec.num_classes, config.minibatch_stddev)
            for shape, first_width in zip(self.shapes, first_widths, strict=True)
        )
        self.couples_images = config.minibatch_stddev > 0
        self.features_depend_on_batch = spec.channels == 4  # backgrounds of transparent images, by position
        if config.spectral_norm:
            apply_spectral_norm(self)

    @property
    def last_layers(self) -> list[nn.Module]:
        """The last layer of each head before its logits: the features, [batch, channel, height, width] each."""
        return [layers[-1] for head in self.heads if isinstance(layers := head.layers, nn.ModuleList)]

    def stage_of(self, name: str) -> int | None:
        """Return how many layers of its head are before this one, or None for what computes the logits."""
        found = re.fullmatch(r"heads\.\d+\.layers\.(\d+)\..+", name)
        return int(found[1]) if found else None

    def features(self, images: Images, first: int = 0) -> FeatureVectors:
        positions = torch.arange(first, first + len(images), device=images.device)
        features = self.projection(images, positions).float()
        return torch.cat([features, to_vectors(images)], dim=1) if self.sees_image else features

    def score(self, features: FeatureVectors, labels: Labels | None = None) -> Logits:
        parts = features.split([math.prod(shape) for shape in self.shapes], 1)
        logits = [
            head(to_maps(part, shape), labels) for head, part, shape in zip(self.heads, parts, self.shapes, strict=True)
        ]
        return torch.cat(logits, dim=1).float()


class FrozenProjection(nn.Module):
    """Maps images to mixed features of all scales, one flat vector per image, finest scale first."""

    colors: Tensor

    def __init__(self, backbone: str, width: int, spec: ImageSpec) -> None:
        super().__init__()
        with torch.device("cpu"):  # its weights are read also where a network is built without memory
            self.backbone = find_backbone(backbone)
        self.factor = input_factor(spec.height, spec.width)
        self.register_buffer("colors", torch.tensor(BACKGROUNDS, device="cpu"))
        with torch.no_grad():
            images = calibration_images(spec)
            taps = self.backbone(self._prepare(images, torch.arange(len(images), device="cpu")))
        widths = [width * 2**scale for scale in range(len(taps))]
        self.channel_mixers = nn.ModuleList(
            random_conv(tap.shape[1], channels, 1, feature_scale(tap, backbone))
            for tap, channels in zip(taps, widths, strict=True)
        )
        self.shapes = [(channels, tap.shape[2], tap.shape[3]) for tap, channels in zip(taps, widths, strict=True)]
        self.scale_mixers = nn.ModuleList(ScaleMixer(coarse, fine) for fine, coarse in pairwise(self.shapes))
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing in torch's stubs

    def forward(self, images: Images, positions: Positions) -> FeatureVectors:
        """`positions` of the images in the whole batch decide on which colors transparent ones are seen."""
        taps = self.backbone(self._prepare(images, positions))
        maps = [mix(tap) for mix, tap in zip(self.channel_mixers, taps, strict=True)]
        for scale in reversed(range(len(self.scale_mixers))):  # from the coarsest to the finest
            maps[scale] = (maps[scale] + self.scale_mixers[scale](maps[scale + 1])) * 2**-0.5
        return torch.cat([to_vectors(each) for each in maps], dim=1)

    def _prepare(self, images: Images, positions: Positions) -> Float[Tensor, "batch 3 new_height new_width"]:
        """Return RGB images of the backbone's input size."""
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        if images.shape[1] == 4:
            images = composite(images, self.colors[positions % len(self.colors)])
        if self.factor > 1:
            images = interpolate(images, scale_factor=self.factor, mode="nearest")
        return avg_pool2d(images, round(1 / self.factor)) if self.factor < 1 else images


class ScaleMixer(nn.Module):
    """Nearest-neighbor enlargement of coarse maps to a finer scale, then a frozen random 3x3 convolution.

    Where both sides are doubled, the two are one transposed convolution with 4/9 of the multiply-adds
    (`nets/upsampling.py`). Shapes are [channels, height, width].
    """

    def __init__(self, coarse: tuple[int, int, int], fine: tuple[int, int, int]) -> None:
        super().__init__()
        self.fine_size = fine[1:]
        self.is_doubling = self.fine_size == (2 * coarse[1], 2 * coarse[2])
        kernel = random_conv(coarse[0], fine[0], 3).weight.detach()
        self.weight = nn.Parameter(BoxKernel()(kernel.transpose(0, 1)) if self.is_doubling else kernel)

    def forward(self, coarse: FeatureMaps) -> Float[Tensor, "batch new_channel new_height new_width"]:
        if self.is_doubling:
            return frozen_doubling_conv(coarse, self.weight)
        return conv2d(interpolate(coarse, size=self.fine_size, mode="nearest"), self.weight, padding=1)


class Head(nn.Module):
    """Halves the maps of one scale to a shorter side of at most 4; returns one logit per position [batch, positions].

    Its first two layers have `first_width` channels, each further two twice as many, up to `max_width`.

    With classes, each logit also contains the projection of the averaged features on the class embedding
    (arXiv:1802.05637, eq. 3).
    """

    def __init__(
        self, shape: tuple[int, int, int], first_width: int, max_width: int, num_classes: int, stddev_group_size: int
    ) -> None:
        super().__init__()
        channels, side, width = shape[0], min(shape[1:]), first_width
        layers: list[nn.Module] = []
        while side > MAX_LOGIT_SIDE:
            width = min(max_width, first_width * 2 ** (len(layers) // 2))
            layers.append(FastConv2d(channels, width, 4, 2, 1))
            channels, side = width, side // 2
        layers = layers or [FastConv2d(channels, width, 1)]
        self.layers = nn.ModuleList(layers)
        self.stddev_group_size = stddev_group_size
        self.to_logits = FastConv2d(width + (stddev_group_size > 0), 1, 3, padding=1)
        self.class_projection = Projection(width, num_classes) if num_classes else None

    def forward(self, maps: FeatureMaps, labels: Labels | None) -> Float[Tensor, "batch position"]:
        for layer in self.layers:
            maps = leaky_relu(layer(maps), 0.2)
        logits = self.to_logits(append_minibatch_stddev(maps, self.stddev_group_size)).flatten(1).float()
        if self.class_projection is None:
            return logits
        return logits + self.class_projection(maps.float().mean(dim=(2, 3)), labels)[:, None]


def to_vectors(maps: FeatureMaps) -> FeatureVectors:
    """Return one vector per image, all channels of a pixel together: for channels-last maps this is a view."""
    return maps.permute(0, 2, 3, 1).flatten(1)


def to_maps(vectors: FeatureVectors, shape: tuple[int, int, int]) -> FeatureMaps:
    """Return the maps of `shape` (channels, height, width) that `to_vectors` was given, in autocast's dtype."""
    channels, height, width = shape
    maps = vectors.to(autocast_dtype(vectors)).unflatten(1, (height, width, channels)).permute(0, 3, 1, 2)
    return maps.contiguous(memory_format=torch.channels_last)


def composite(
    images: Float[Tensor, "batch 4 height width"], colors: Float[Tensor, "batch 3"]
) -> Float[Tensor, "batch 3 height width"]:
    """Return RGBA images, each on its background color."""
    background = colors.to(images.dtype)[:, :, None, None]
    opacity = (images[:, 3:] + 1) / 2
    return images[:, :3] * opacity + background * (1 - opacity)


def input_factor(height: int, width: int) -> float:
    """Return the factor by which images are resized before the backbone: a whole number, or 1 over one."""
    side = min(height, width)
    return (
        float(max(1, math.ceil(MIN_INPUT_SIDE / side)))
        if side <= MAX_INPUT_SIDE
        else 1 / math.ceil(side / MAX_INPUT_SIDE)
    )


def random_conv(in_channels: int, out_channels: int, kernel: int, input_scale: float = 1.0) -> nn.Conv2d:
    """Return a convolution with frozen random weights, whose output has the variance of its input / `input_scale`."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    nn.init.normal_(conv.weight, std=(in_channels * kernel**2) ** -0.5 / input_scale)
    return conv


def calibration_images(spec: ImageSpec) -> Images:
    """Return fixed opaque images of large colored shapes, which show how large a backbone's features are.

    Features divided by their scale have deviations of about 1, so a penalty in feature space has about the same
    strength for all backbones. How icons compare: docs/lab-book.md, "First trials of the game on pretrained features".
    """
    generator, size = torch.Generator().manual_seed(0), (spec.height, spec.width)
    noise = [torch.randn(8, spec.channels, side, side, generator=generator, device="cpu") for side in (3, 6)]
    images = torch.stack([interpolate(each, size, mode="bicubic") for each in noise]).sum(0).mul_(3.5).tanh_()
    images[:, 3:] = 1.0
    return images


def feature_scale(tap: FeatureMaps, backbone: str) -> float:
    """Return the largest power of two that is at most the root mean square of these features.

    A power of two, so that small differences between machines change neither it nor the digest of the frozen weights.
    Raises CardiganError for features that are not finite or all 0.
    """
    deviation = tap.square().mean().sqrt().item()
    if not 0 < deviation < math.inf:
        raise CardiganError(
            f"discriminator.options.backbone is {backbone!r}, whose features of shape {tuple(tap.shape[1:])} have a "
            f"root mean square of {deviation}: expected finite features, not all 0."
        )
    return 2.0 ** math.floor(math.log2(deviation))
