"""The update of one network by its gradients, refused where a number is not finite."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.optim import Optimizer

from cardigan.shapes import Scalar
from cardigan.training.devices import Devices
from cardigan.training.gradients import mean_gradients


@contextmanager
def freeze_parameters(network: nn.Module) -> Iterator[None]:
    """Inside the block, compute no gradient of this network's weights. Gradients still flow through it."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def apply_gradients(
    network: nn.Module, optimizer: Optimizer, losses: Iterable[Scalar], num_losses: int, devices: Devices
) -> Scalar:
    """Update one network by the sum of these losses; the gradients of the other are never computed.

    Each loss's gradient is computed before the next loss is. Returns the norm of their sum, over all processes
    together. If it or a loss is not finite, nothing is updated: every process sees the same sum, so all of them
    refuse.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    gradients, mean_loss = mean_gradients(losses, num_losses, parameters, devices.process_group)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        # Fused Adam walks raw memory: a gradient laid out otherwise than its parameter would update the wrong weights.
        parameter.grad = (
            gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)
        )
    norm = gradient_norm(gradients) + 0 * mean_loss
    _step_if_finite(norm.isfinite(), optimizer, devices)
    optimizer.zero_grad(set_to_none=True)
    return norm


def gradient_norm(gradients: list[Tensor]) -> Scalar:
    """Return the Euclidean norm of all gradients together; not finite if any number in them is not."""
    norms = torch._foreach_norm(gradients)  # pyright: ignore[reportPrivateImportUsage] - as torch's own clipping
    return torch.linalg.vector_norm(torch.stack(norms))


def _step_if_finite(is_finite: Bool[Tensor, ""], optimizer: Optimizer, devices: Devices) -> None:
    """Step unless a number is not finite. On a GPU the optimizer's kernel decides, so that the host need not wait."""
    if devices.is_async:
        # How torch.amp tells a fused optimizer to skip a step.
        optimizer.found_inf = (~is_finite).float()  # pyright: ignore[reportAttributeAccessIssue]
        optimizer.step()
    elif is_finite:
        optimizer.step()
