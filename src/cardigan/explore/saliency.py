"""D's logits, its input gradients, and visualizations of its features.

Reads one checkpoint's networks; changes no weight.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import leaky_relu, relu
from torch.overrides import TorchFunctionMode

from cardigan.errors import CardiganError
from cardigan.explore.layers import check_not_packed, discriminator_layers, layer_at
from cardigan.explore.views import ImageRow
from cardigan.models.run_networks import RunNetworks
from cardigan.models.sampling import validate_labels
from cardigan.nets.activations import record_activations
from cardigan.nets.interface import Discriminator, mean_over_heads
from cardigan.nets.mlp import MlpDiscriminator
from cardigan.pixels import decode
from cardigan.shapes import Images, Labels, Pixels

NEUTRAL_COLOR, DARKER_COLOR, BRIGHTER_COLOR = (246.0, 246.0, 244.0), (24.0, 84.0, 176.0), (222.0, 96.0, 12.0)
"""Colors of a zero, a most negative and a most positive gradient; safe for color-blind readers."""
NUM_FEATURES, NUM_EXAMPLES = 8, 6
BATCH_SIZE = 64
HEATMAP_QUANTILE = 0.995


def discriminator_logits(networks: RunNetworks, pixels: Pixels, labels: Labels | None) -> Float[Tensor, " image"]:
    """Return D's logits, the mean over its heads. Larger means more real; the meaning of 0 depends on the loss.

    With minibatch standard deviation, the groups are formed from the given images, 64 at a time.
    Raises CardiganError for a D with pac > 1, images of another size, and missing, unexpected or invalid labels.
    """
    _check_inputs(networks, pixels, labels)
    with torch.no_grad():
        return torch.cat(
            [
                mean_over_heads(networks.discriminator(images, classes)).float().cpu()
                for images, classes in _batches(networks, pixels, labels)
            ]
        )


def input_gradient(networks: RunNetworks, pixels: Pixels, labels: Labels | None) -> Images:
    """Return d logit / d image, for images in [-1, 1]: the change that makes each image look more real to D.

    G's training gradient (arXiv:1406.2661, algorithm 1) is this times the loss's derivative, one scalar per image.
    """
    _check_inputs(networks, pixels, labels)
    gradients = []
    with torch.enable_grad():
        for images, classes in _batches(networks, pixels, labels):
            images.requires_grad_()
            (gradient,) = torch.autograd.grad(mean_over_heads(networks.discriminator(images, classes)).sum(), images)
            gradients.append(gradient.float().cpu())
    return torch.cat(gradients)


def signed_heatmap(gradient: Float[Tensor, "batch channel height width"]) -> UInt8[Tensor, "batch color height width"]:
    """Return a gradient as an image [n, 3, h, w]: blue where negative (darker), orange where positive (brighter).

    Gradients are summed over the color channels and scaled by their 99.5th percentile per image. A fourth channel is
    alpha and is ignored.
    """
    color_channels = gradient[:, :3] if gradient.shape[1] in (3, 4) else gradient
    signed = color_channels.float().sum(1)
    scale = torch.quantile(signed.abs().flatten(1), HEATMAP_QUANTILE, dim=1)
    level = (signed / scale.clamp(min=1e-12)[:, None, None]).clamp(-1, 1)[:, None]
    neutral, darker, brighter = (
        torch.tensor(color)[None, :, None, None] for color in (NEUTRAL_COLOR, DARKER_COLOR, BRIGHTER_COLOR)
    )
    image = neutral + level.clamp(min=0) * (brighter - neutral) - level.clamp(max=0) * (darker - neutral)
    return image.round().to(torch.uint8)


def guided_backpropagation(
    networks: RunNetworks, pixels: Pixels, labels: Labels | None, feature: int, layer: int = -1
) -> Images:
    """Return the guided gradient [n, c, h, w] of one of D's features at its strongest position in each image.

    Rectifiers pass only what is positive both forward and backward (arXiv:1412.6806, section 3.4). The DCGAN paper
    shows its discriminator's last features this way (arXiv:1511.06434, section 6.1, figure 5).
    Raises CardiganError for `mlp`, which has maxout units and no rectifiers.
    """
    _check_inputs(networks, pixels, labels)
    if isinstance(networks.discriminator, MlpDiscriminator):
        raise CardiganError(
            "The mlp discriminator has maxout units; guided backpropagation needs rectifiers: give another run."
        )
    layer_module = layer_at(discriminator_layers(networks.discriminator), layer)
    gradients = []
    with torch.enable_grad():
        for images, classes in _batches(networks, pixels, labels):
            images.requires_grad_()
            with GuidedReLUMode(), record_activations([layer_module]) as maps:
                networks.discriminator(images, classes)
            check_feature(maps[0], feature)
            activation = maps[0][:, feature].flatten(1).amax(1).sum()
            (gradient,) = torch.autograd.grad(activation, images)
            gradients.append(gradient.float().cpu())
    return torch.cat(gradients)


def max_activations(
    networks: RunNetworks, pixels: Pixels, labels: Labels | None, layer: int = -1
) -> Float[Tensor, "batch feature"]:
    """Return each feature's largest activation over all positions, for one of D's layers."""
    _check_inputs(networks, pixels, labels)
    activations = []
    with torch.no_grad(), record_activations([layer_at(discriminator_layers(networks.discriminator), layer)]) as maps:
        for images, classes in _batches(networks, pixels, labels):
            maps.clear()
            networks.discriminator(images, classes)
            activations.append(maps[0].flatten(2).amax(2).float().cpu() if maps[0].dim() > 2 else maps[0].float().cpu())
    return torch.cat(activations)


def check_feature(maps: Float[Tensor, "batch feature *position"], feature: int) -> None:
    if not 0 <= feature < maps.shape[1]:
        raise CardiganError(f"feature is {feature}: expected 0..{maps.shape[1] - 1} in this layer.")


class GuidedReLU(Function):
    """max(x, negative_slope * x) forward; backward passes positive gradients where x > 0 (arXiv:1412.6806, fig. 1c)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, negative_slope: float) -> Tensor:
        ctx.save_for_backward(x > 0)
        return torch.where(x > 0, x, negative_slope * x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (positive,) = ctx.saved_tensors
        return gradients[0].clamp(min=0) * positive, None


class GuidedReLUMode(TorchFunctionMode):
    """Replaces every rectifier inside the block by `GuidedReLU`."""

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        if func in {torch.relu, relu}:
            return GuidedReLU.apply(args[0], 0.0)
        if func is leaky_relu:
            return GuidedReLU.apply(args[0], args[1] if len(args) > 1 else (kwargs or {}).get("negative_slope", 0.01))
        return func(*args, **(kwargs or {}))


def _check_inputs(networks: RunNetworks, pixels: Pixels, labels: Labels | None) -> None:
    check_not_packed(networks.discriminator)
    spec = networks.snapshot.spec
    if tuple(pixels.shape[1:]) != (spec.channels, spec.height, spec.width):
        image_shape = "x".join(map(str, pixels.shape[1:]))
        raise CardiganError(
            f"The images are {image_shape}, the run's are {spec.channels}x{spec.height}x{spec.width}: "
            "preprocess them to the run's shape first."
        )
    if labels is not None:
        validate_labels(labels, len(pixels), spec.num_classes)
    elif spec.num_classes:
        raise CardiganError(
            f"This discriminator is class-conditional: give each image a label from 0..{spec.num_classes - 1}."
        )


def _batches(networks: RunNetworks, pixels: Pixels, labels: Labels | None) -> Iterator[tuple[Images, Labels | None]]:
    device = network_device(networks.discriminator)
    for start in range(0, len(pixels), BATCH_SIZE):
        batch = slice(start, start + BATCH_SIZE)
        yield decode(pixels[batch]).to(device), None if labels is None else labels[batch].to(device)


def network_device(network: Discriminator) -> torch.device:
    return next(network.parameters()).device


def feature_rows(networks: RunNetworks, pixels: Pixels, labels: Labels | None) -> list[ImageRow]:
    """Return a row for each of eight of D's last features: its six most activating images, then their guided gradients.

    Selects the features with the largest standard deviation over images, relative to their mean absolute activation.
    """
    activations = max_activations(networks, pixels, labels)
    relative_std = activations.std(0) / activations.abs().mean(0).clamp(min=1e-6)
    rows = []
    for feature in relative_std.argsort(descending=True, stable=True)[:NUM_FEATURES].tolist():
        best = activations[:, feature].argsort(descending=True, stable=True)[:NUM_EXAMPLES]
        examples = pixels[best]
        gradient = guided_backpropagation(networks, examples, None if labels is None else labels[best], feature)
        rows.append(torch.cat([examples, gradient_images(gradient)]))
    return rows


def gradient_images(gradient: Float[Tensor, "batch channel height width"]) -> Pixels:
    """Return gradients as images around mid-gray, each scaled by its largest value. Alpha (channel 4) is opaque."""
    level = gradient / gradient.flatten(1).abs().amax(1).clamp(min=1e-12)[:, None, None, None]
    image = (127.5 + 127.5 * level).round().to(torch.uint8)
    if image.shape[1] == 4:
        image[:, 3] = 255
    return image
