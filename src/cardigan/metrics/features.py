"""Feature extractors by name. A distance is meaningful only with its extractor."""

import hashlib
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate

from cardigan.backbones.digit_classifier import SIDE, digit_classifier
from cardigan.backbones.dinov2 import IMAGENET_MEAN_STD, build_dinov2
from cardigan.backbones.efficientnet import EXAMINER, VARIANTS, FoldedFeatures, efficientnet, is_installed
from cardigan.backbones.inception import InceptionV3, tensorflow_resize
from cardigan.backbones.weights import load_weights
from cardigan.errors import CardiganError, unknown
from cardigan.files.sha256 import file_sha256
from cardigan.hardware.device import find_device
from cardigan.hardware.memory import keep_freed_memory
from cardigan.hardware.precision import ieee_fp32
from cardigan.metrics.digits import digit_features, stacked_digit_features
from cardigan.shapes import Pixels

CHUNK_SIZE = 25
CPU = torch.device("cpu")
Features = Float[Tensor, "n feature"]
ClassLogits = Float[Tensor, "n class"]
ImageShape = tuple[int, int, int]
"""Channels, height, width."""


@dataclass(frozen=True)
class FeatureExtractor:
    """A function from images to features, with all facts that make its results comparable."""

    name: str
    distance_name: str
    """Name of the Frechet distance over these features, such as fd_pixels. Only Inception's is an FID."""
    weights_sha256: str
    """SHA-256 of the weights. Empty if there are none."""
    num_features: int
    resize: str
    """How images are resized to its input size."""
    features: Callable[[Pixels], Features]
    logits: Callable[[Features], ClassLogits] | None = None
    """Its classifier, from features to logits, if it has one."""
    on_device: Callable[[torch.device], Callable[[Pixels], Features]] | None = None
    """Returns the function from images to features of a device, for images on that device. Default: the features can
    only be computed on the CPU."""

    @property
    def kernel_distance_name(self) -> str:
        """Name of the kernel distance over these features. Only Inception's is a KID."""
        return "kid" if self.distance_name == "fid" else f"kd_{self.distance_name.removeprefix('fd_')}"

    @property
    def classifier_score_name(self) -> str:
        return "inception_score" if self.distance_name == "fid" else "classifier_score"


def shape_text(image_shape: Sequence[int]) -> str:
    """Return an `ImageShape` for a message: height x width x channels."""
    channels, height, width = image_shape
    return f"{height}x{width}x{channels}"


def find_extractor(
    name: str, image_shape: ImageShape, weights: Path | None = None, device: str | torch.device = "cpu"
) -> FeatureExtractor:
    """Return an extractor for images of this shape. It takes and returns tensors on the CPU.

    Its network is on `device`, if it has one. Raises CardiganError for an unknown name, unsupported images, a missing
    extra or device, or weights that are missing, damaged or unexpected.
    """
    if name not in EXTRACTORS:
        raise unknown("extractor", name, EXTRACTORS)
    builder = EXTRACTORS[name]
    if builder.needs_weights and weights is None:
        raise CardiganError(
            f"The extractor {name!r} needs a weights file: add --weights FILE.safetensors (docs/guides/evaluation.md)."
        )
    if not builder.needs_weights and weights is not None:
        raise CardiganError(f"The extractor {name!r} has its own weights, so --weights has no effect: omit it.")
    extractor, torch_device = builder.build(image_shape, weights), find_device(device)
    if torch_device.type == "cpu" or extractor.on_device is None:
        return extractor
    return replace(extractor, features=_apply_in_chunks(extractor.on_device(torch_device), torch_device))


def _digits_extractor(image_shape: ImageShape, _: Path | None) -> FeatureExtractor:
    if image_shape == (3, SIDE, SIDE):
        return FeatureExtractor(
            "digits",
            "fd_stacked_digits",
            _digit_weights_sha256(),
            384,
            "none, each channel a digit",
            stacked_digit_features,
        )
    if image_shape != (1, SIDE, SIDE):
        raise CardiganError(
            f"The extractor 'digits' needs gray {SIDE}x{SIDE} digits, not {shape_text(image_shape)}: "
            "choose another with --extractor."
        )
    classifier = digit_classifier()
    return FeatureExtractor("digits", "fd_digits", _digit_weights_sha256(), 128, "none", digit_features, classifier.fc)


@cache
def _digit_weights_sha256() -> str:
    return hashlib.sha256(files("cardigan.backbones").joinpath("digit_classifier.safetensors").read_bytes()).hexdigest()


def _pixels_extractor(image_shape: ImageShape, _: Path | None) -> FeatureExtractor:
    channels, height, width = image_shape

    def features(pixels: Pixels) -> Features:
        if pixels.shape[1] != channels:
            raise CardiganError(
                f"Samples of {pixels.shape[1]} channels and real images of {channels}: expected equal channels."
            )
        return (resize(pixels, height, width) / 255).flatten(1)

    return FeatureExtractor(
        "pixels",
        "fd_pixels",
        "",
        channels * height * width,
        "bilinear, antialiased, to the reference's size",
        features,
    )


def _efficientnet_extractor(name: str, image_shape: ImageShape, _: Path | None) -> FeatureExtractor:
    network = efficientnet(name)

    def preprocess(pixels: Pixels) -> Tensor:
        return (resize(to_rgb(pixels), 224, 224) - 127) / 128

    on_device = _features_on_device(FoldedFeatures(network), preprocess)
    resize_note = "bilinear, antialiased, to 224x224"
    return FeatureExtractor(
        name,
        f"fd_{name.replace('-', '_')}",
        VARIANTS[name].sha256,
        1280,
        resize_note,
        _apply_in_chunks(on_device(CPU), CPU),
        network.classifier,
        on_device,
    )


def _inception_extractor(image_shape: ImageShape, weights: Path | None) -> FeatureExtractor:
    assert weights is not None
    network = InceptionV3()
    _load_weights(network, weights, "inception")

    def preprocess(pixels: Pixels) -> Tensor:
        return (tensorflow_resize(to_rgb(pixels).float(), 299, 299) - 128) / 128

    def logits(features: Features) -> ClassLogits:
        return features @ network.fc.weight.T  # without bias, as in the reference code of the Inception score

    on_device = _features_on_device(network, preprocess)
    return FeatureExtractor(
        "inception",
        "fid",
        file_sha256(weights),
        2048,
        "bilinear, as TensorFlow 1, to 299x299",
        _apply_in_chunks(on_device(CPU), CPU),
        logits,
        on_device,
    )


def _dinov2_extractor(image_shape: ImageShape, weights: Path | None) -> FeatureExtractor:
    assert weights is not None
    tensors = load_weights(weights)
    network = build_dinov2(tensors, weights)

    def preprocess(pixels: Pixels) -> Tensor:
        mean, std = (torch.tensor(values, device=pixels.device)[:, None, None] * 255 for values in IMAGENET_MEAN_STD)
        return (resize(to_rgb(pixels), 224, 224) - mean) / std

    on_device = _features_on_device(network, preprocess)
    name = f"dinov2 ({network.embed_dim})"
    return FeatureExtractor(
        name,
        "fd_dinov2",
        file_sha256(weights),
        network.embed_dim,
        "bilinear, antialiased, to 224x224",
        _apply_in_chunks(on_device(CPU), CPU),
        on_device=on_device,
    )


@dataclass(frozen=True)
class ExtractorBuilder:
    """How an extractor is built."""

    build: Callable[[ImageShape, Path | None], FeatureExtractor]
    """Takes the images' shape and the weights. Raises CardiganError for images that the extractor cannot read."""
    needs_weights: bool = False
    """Whether the user gives the weights (--weights)."""


EXTRACTORS: dict[str, ExtractorBuilder] = {
    "digits": ExtractorBuilder(_digits_extractor),
    "pixels": ExtractorBuilder(_pixels_extractor),
    **{name: ExtractorBuilder(partial(_efficientnet_extractor, name)) for name in VARIANTS},
    "inception": ExtractorBuilder(_inception_extractor, needs_weights=True),
    "dinov2": ExtractorBuilder(_dinov2_extractor, needs_weights=True),
}


def default_extractor(image_shape: ImageShape) -> str:
    """Return the default extractor: EfficientNet-Lite2 if its weights are installed, otherwise pixels."""
    return EXAMINER if image_shape[0] in (1, 3, 4) and is_installed(EXAMINER) else "pixels"


def resize(pixels: Pixels, height: int, width: int) -> Float[Tensor, "batch channel out_height out_width"]:
    """Return resized images, 0..255, not rounded."""
    if pixels.shape[2:] == (height, width):
        return pixels.float()
    return interpolate(pixels.float(), size=(height, width), mode="bilinear", align_corners=False, antialias=True)


def to_rgb(pixels: Pixels) -> UInt8[Tensor, "batch 3 height width"]:
    """Return RGB images; RGBA is composited on white. Raises CardiganError unless there are 1, 3 or 4 channels."""
    if pixels.shape[1] == 4:
        rgb, alpha = pixels[:, :3].float(), pixels[:, 3:].float() / 255
        return (rgb * alpha + 255 * (1 - alpha)).round().to(torch.uint8)
    if pixels.shape[1] not in (1, 3):
        raise CardiganError(
            f"Images of {pixels.shape[1]} channels: this extractor needs gray, RGB or RGBA; choose --extractor pixels."
        )
    return pixels.expand(-1, 3, -1, -1)


def _load_weights(network: nn.Module, weights: Path, name: str) -> None:
    tensors = load_weights(weights)
    expected, found = _shapes(network.state_dict()), _shapes(tensors)
    if found != expected:
        mismatched = sorted(expected.keys() ^ found.keys()) or sorted(
            key for key in expected if expected[key] != found[key]
        )
        raise CardiganError(
            f"{weights} does not hold the network {name!r} ({len(mismatched)} tensors differ, such as "
            f"{mismatched[0]}): see docs/guides/evaluation.md."
        )
    network.load_state_dict({**network.state_dict(), **tensors})
    network.eval().requires_grad_(False)


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    """Return the shape of every tensor except `num_batches_tracked`, which is unused and missing in some files."""
    return {name: tensor.shape for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}


def _features_on_device(
    network: nn.Module,
    preprocess: Callable[[Pixels], Tensor],
    forward: Callable[[Any, Tensor], Features] = nn.Module.__call__,
) -> Callable[[torch.device], Callable[[Pixels], Features]]:
    """Return `FeatureExtractor.on_device` of a network on the CPU. Another device gets a copy."""

    def on_device(device: torch.device) -> Callable[[Pixels], Features]:
        device_network = network if device.type == "cpu" else deepcopy(network).to(device)
        return lambda pixels: forward(device_network, preprocess(pixels))

    return on_device


def _apply_in_chunks(
    chunk_features: Callable[[Pixels], Features], device: torch.device
) -> Callable[[Pixels], Features]:
    """Return the function from images to features on the CPU, computed in chunks on a device."""

    def features(pixels: Pixels) -> Features:
        with torch.no_grad(), ieee_fp32(device), keep_freed_memory():
            return torch.cat([chunk_features(chunk.to(device)).cpu() for chunk in pixels.split(CHUNK_SIZE)])

    return features
