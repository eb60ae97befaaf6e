"""Class histogram metrics: KL divergence from the data, classes covered, classifier score.

Works on class indices and logits; the caller supplies the classifier.
"""

import torch
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor

from cardigan.errors import CardiganError
from cardigan.metrics.digits import digit_features, predict_digits
from cardigan.shapes import Labels

NUM_STACKED_MODES = 1_000


def class_counts(labels: Labels, num_classes: int) -> Int64[Tensor, " class"]:
    """Return the number of images per class.

    Raises CardiganError for no images or a label outside 0..num_classes-1.
    """
    if len(labels) == 0:
        raise CardiganError("A class histogram of 0 images: expected at least 1.")
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise CardiganError(f"Labels from {int(labels.min())} to {int(labels.max())}: expected 0..{num_classes - 1}.")
    return torch.bincount(labels, minlength=num_classes)


def class_kl(counts: Int64[Tensor, " class"], reference: Int64[Tensor, " class"]) -> float:
    """Return KL(counts || reference) of the two histograms in nats.

    Its bias from sampling alone is (classes - 1) / (2 N) on average, so report N with it. Raises CardiganError if
    `counts` has a class that `reference` lacks, because the divergence is then infinite.
    """
    if bool(((counts > 0) & (reference == 0)).any()):
        raise CardiganError(
            "The samples contain classes that the reference lacks, so the KL divergence is infinite: "
            "use a reference with these classes."
        )
    p, q = counts.double() / counts.sum(), reference.double() / reference.sum()
    is_present = p > 0
    return float((p[is_present] * (p[is_present] / q[is_present]).log()).sum())


def num_covered(counts: Int64[Tensor, " class"]) -> int:
    """Return the number of classes with at least one image."""
    return int((counts > 0).sum())


def classifier_score(logits: Float[Tensor, "n class"]) -> float:
    """Return exp(E[KL(p(y|x) || p(y))]), from 1 to the number of classes (arXiv:1606.03498, section 4).

    With Inception's logits this is the Inception score.
    """
    log_p = logits.double().log_softmax(1)
    marginal = log_p.logsumexp(0) - torch.tensor(float(len(log_p)), dtype=torch.float64).log()
    return float((log_p.exp() * (log_p - marginal)).sum(1).mean().exp())


def stacked_modes(pixels: UInt8[Tensor, "n 3 28 28"]) -> Labels:
    """Return the mode of each stacked MNIST image, 0..999 (arXiv:1611.02163).

    The digit classifier predicts the digits of the red, green and blue channels.
    """
    digits = [predict_digits(digit_features(pixels[:, channel : channel + 1])) for channel in range(3)]
    return digits[0] * 100 + digits[1] * 10 + digits[2]


def uniform_counts(num_classes: int) -> Int64[Tensor, " class"]:
    """Return the histogram of equally frequent classes, as in stacked MNIST."""
    return torch.ones(num_classes, dtype=torch.int64)


def frequencies(counts: Int64[Tensor, " class"]) -> Float64[Tensor, " class"]:
    return counts.double() / counts.sum()
