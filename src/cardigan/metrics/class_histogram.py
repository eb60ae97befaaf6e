"""Which classes the generated pictures fall into: histogram, divergence from the data's, classes missing, the classifier score.

Knows class numbers and logits; what names the classes is the caller's.
"""

import torch
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor

from cardigan.errors import CardiganError
from cardigan.metrics.digits import digit_features, predict_digits
from cardigan.shapes import Labels

NUM_STACKED_MODES = 1_000


def class_counts(labels: Labels, num_classes: int) -> Int64[Tensor, " class"]:
    """Return how many pictures fall into each class; raises CardiganError for a label outside 0..classes-1 or no picture."""
    if len(labels) == 0:
        raise CardiganError("A class histogram of 0 pictures: expected at least 1.")
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise CardiganError(f"Labels from {int(labels.min())} to {int(labels.max())}: expected 0..{num_classes - 1}.")
    return torch.bincount(labels, minlength=num_classes)


def class_kl(counts: Int64[Tensor, " class"], reference: Int64[Tensor, " class"]) -> float:
    """Return KL(counts || reference) of the two histograms in nats.

    Sampling alone gives (classes - 1) / (2 N) on average, so print N beside it. Raises CardiganError where a class is drawn that the
    reference does not have, which would be an infinite divergence.
    """
    if bool(((counts > 0) & (reference == 0)).any()):
        raise CardiganError(
            "Classes were drawn that the reference does not have, so the divergence is infinite: give a reference that has them."
        )
    p, q = counts.double() / counts.sum(), reference.double() / reference.sum()
    is_drawn = p > 0
    return float((p[is_drawn] * (p[is_drawn] / q[is_drawn]).log()).sum())


def num_covered(counts: Int64[Tensor, " class"]) -> int:
    """Return how many classes have at least one picture."""
    return int((counts > 0).sum())


def classifier_score(logits: Float[Tensor, "n class"]) -> float:
    """Return exp(E[KL(p(y|x) || p(y))]), from 1 to the number of classes (arXiv:1606.03498, section 4).

    Over Inception's logits it is the Inception score.
    """
    log_p = logits.double().log_softmax(1)
    marginal = log_p.logsumexp(0) - torch.tensor(float(len(log_p)), dtype=torch.float64).log()
    return float((log_p.exp() * (log_p - marginal)).sum(1).mean().exp())


def stacked_modes(pixels: UInt8[Tensor, "n 3 28 28"]) -> Labels:
    """Return the mode of each picture of stacked MNIST, 0..999: the digits of red, green, blue as the judge reads them (arXiv:1611.02163)."""
    digits = [predict_digits(digit_features(pixels[:, channel : channel + 1])) for channel in range(3)]
    return digits[0] * 100 + digits[1] * 10 + digits[2]


def uniform_counts(num_classes: int) -> Int64[Tensor, " class"]:
    """Return the histogram of equally frequent classes: what stacked MNIST is drawn from."""
    return torch.ones(num_classes, dtype=torch.int64)


def frequencies(counts: Int64[Tensor, " class"]) -> Float64[Tensor, " class"]:
    return counts.double() / counts.sum()
