"""What turns pictures into the features that distances are taken over, by name: a distance means nothing without its extractor.

Knows pixels and networks that judge; does not know generators.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate

from cardigan.errors import CardiganError, unknown
from cardigan.metrics.digits import SIDE, digit_features, digit_judge, stacked_digit_features
from cardigan.metrics.dinov2 import dinov2
from cardigan.metrics.efficientnet import efficientnet_lite0, installed
from cardigan.metrics.inception import Inception, tensorflow_resized
from cardigan.metrics.weights import file_hash, given_weights
from cardigan.shapes import Pixels

CHUNK = 25
Features = Float[Tensor, "n feature"]
ClassLogits = Float[Tensor, "n class"]
Frame = tuple[int, int, int]
"""Channels, height, width."""


@dataclass(frozen=True)
class Extractor:
    """A way from pictures to features, with everything that must be said for its numbers to be comparable."""

    name: str
    distance: str
    """What a Frechet distance over these features is called: only Inception's is a FID."""
    identity: str
    """SHA-256 of the weights; empty if there are none."""
    dimension: int
    resizer: str
    """How pictures are brought to the size it takes."""
    features: Callable[[Pixels], Features]
    logits: Callable[[Features], ClassLogits] | None = None
    """Its classifier, from features, if it has one."""

    @property
    def kernel_distance(self) -> str:
        """What a kernel distance over these features is called: only Inception's is a KID."""
        return "kid" if self.distance == "fid" else self.distance.replace("distance", "kernel_distance")

    @property
    def classifier_score(self) -> str:
        return "inception_score" if self.distance == "fid" else "classifier_score"


def find_extractor(name: str, frame: Frame, weights: Path | None = None) -> Extractor:
    """Return an extractor for pictures of this frame.

    Raises CardiganError for an unknown name, pictures it cannot judge, a missing extra, or weights that are missing, damaged or not wanted.
    """
    if name not in EXTRACTORS:
        raise unknown("extractor", name, EXTRACTORS)
    given = name in GIVEN
    if given and weights is None:
        raise CardiganError(f"The extractor {name!r} comes without weights: give its file with --weights FILE.safetensors (docs/guides/judging.md).")
    if not given and weights is not None:
        raise CardiganError(f"The extractor {name!r} has its own weights, so --weights has no effect: leave it out.")
    return EXTRACTORS[name](frame, weights)


def _digits(frame: Frame, _: Path | None) -> Extractor:
    if frame == (3, SIDE, SIDE):
        return Extractor("digits", "stacked_digit_distance", _embedded_hash(), 384, "none, each channel a digit", stacked_digit_features)
    if frame != (1, SIDE, SIDE):
        raise CardiganError(f"The extractor 'digits' judges grey {SIDE}x{SIDE} digits, these are {_shape(frame)}: choose another with --extractor.")
    judge = digit_judge()
    return Extractor("digits", "digit_distance", _embedded_hash(), 128, "none", digit_features, judge.verdict)


@cache
def _embedded_hash() -> str:
    return hashlib.sha256(files("cardigan.metrics").joinpath("digits.safetensors").read_bytes()).hexdigest()


def _pixels(frame: Frame, _: Path | None) -> Extractor:
    channels, height, width = frame

    def features(pixels: Pixels) -> Features:
        if pixels.shape[1] != channels:
            raise CardiganError(f"Pictures of {pixels.shape[1]} channels beside real ones of {channels}: expected equal channels.")
        return (resized(pixels, height, width) / 255).flatten(1)

    return Extractor("pixels", "pixel_distance", "", channels * height * width, "bilinear, antialiased, to the reference's size", features)


def _efficientnet(frame: Frame, _: Path | None) -> Extractor:
    network, identity = efficientnet_lite0()

    def prepared(pixels: Pixels) -> Tensor:
        return (resized(coloured(pixels), 224, 224) - 127) / 128

    features = _chunked(network.features, prepared)
    resizer = "bilinear, antialiased, to 224x224"
    return Extractor("efficientnet-lite0", "efficientnet_lite0_distance", identity, 1280, resizer, features, network.classifier)


def _inception(frame: Frame, weights: Path | None) -> Extractor:
    assert weights is not None
    network = Inception()
    _load(network, weights, "inception")

    def prepared(pixels: Pixels) -> Tensor:
        return (tensorflow_resized(coloured(pixels).float(), 299, 299) - 128) / 128

    def logits(features: Features) -> ClassLogits:
        return features @ network.fc.weight.T  # without bias, as the Inception score's program does

    features = _chunked(network, prepared)
    return Extractor("inception", "fid", file_hash(weights), 2048, "bilinear, as TensorFlow 1, to 299x299", features, logits)


def _dinov2(frame: Frame, weights: Path | None) -> Extractor:
    assert weights is not None
    tensors = given_weights(weights)
    network = dinov2(tensors, weights)
    mean, deviation = (torch.tensor(values)[:, None, None] * 255 for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def prepared(pixels: Pixels) -> Tensor:
        return (resized(coloured(pixels), 224, 224) - mean) / deviation

    name = f"dinov2 ({network.width})"
    return Extractor(name, "dinov2_distance", file_hash(weights), network.width, "bilinear, antialiased, to 224x224", _chunked(network, prepared))


EXTRACTORS: dict[str, Callable[[Frame, Path | None], Extractor]] = {
    "digits": _digits,
    "pixels": _pixels,
    "efficientnet-lite0": _efficientnet,
    "inception": _inception,
    "dinov2": _dinov2,
}
GIVEN = frozenset({"inception", "dinov2"})
"""Those whose weights the user gives."""


def default_extractor(frame: Frame) -> str:
    """Return the name of the extractor for pictures nothing is known of: the photograph backbone if its weights are installed, else the pixels."""
    return "efficientnet-lite0" if frame[0] in (1, 3, 4) and installed() else "pixels"


def resized(pixels: Pixels, height: int, width: int) -> Float[Tensor, "batch channel out_height out_width"]:
    """Return pictures at another size, still 0..255 but not rounded."""
    if pixels.shape[2:] == (height, width):
        return pixels.float()
    return interpolate(pixels.float(), size=(height, width), mode="bilinear", align_corners=False, antialias=True)


def coloured(pixels: Pixels) -> UInt8[Tensor, "batch 3 height width"]:
    """Return pictures with three channels, transparent ones before white; raises CardiganError unless they have one, three or four."""
    if pixels.shape[1] == 4:
        colour, opaque = pixels[:, :3].float(), pixels[:, 3:].float() / 255
        return (colour * opaque + 255 * (1 - opaque)).round().to(torch.uint8)
    if pixels.shape[1] not in (1, 3):
        raise CardiganError(f"Pictures of {pixels.shape[1]} channels: this extractor takes grey, RGB or RGBA, so choose --extractor pixels.")
    return pixels.expand(-1, 3, -1, -1)


def _load(network: nn.Module, weights: Path, name: str) -> None:
    tensors = given_weights(weights)
    expected, found = _shapes(network.state_dict()), _shapes(tensors)
    if found != expected:
        odd = sorted(expected.keys() ^ found.keys()) or sorted(key for key in expected if expected[key] != found[key])
        raise CardiganError(
            f"{weights} does not hold the network {name!r} ({len(odd)} tensors differ, such as {odd[0]}): see docs/guides/judging.md."
        )
    network.load_state_dict({**network.state_dict(), **tensors})
    network.eval().requires_grad_(False)


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    """Return the shape of every tensor but the counters of batch normalisation, which judging does not read and some files leave out."""
    return {name: tensor.shape for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}


def _chunked(network: Callable[[Tensor], Tensor], prepared: Callable[[Pixels], Tensor]) -> Callable[[Pixels], Features]:
    def features(pixels: Pixels) -> Features:
        with torch.no_grad():
            return torch.cat([network(prepared(chunk)) for chunk in pixels.split(CHUNK)])

    return features


def _shape(frame: Frame) -> str:
    return f"{frame[1]}x{frame[2]}x{frame[0]}"
