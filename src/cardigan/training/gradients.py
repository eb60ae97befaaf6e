"""The gradient of a sum of losses, averaged over the processes of a run.

On a GPU the average of the last layers' gradients is on its way while those of the first layers are still computed.
Penalties stay right: a bucket is sent only when the one backward pass of the last loss has summed all contributions.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor

from cardigan.shapes import Scalar
from cardigan.training.distributed import AsyncMean, ProcessGroup

BUCKET_BYTES = {"cuda": 8 << 20}
"""Gradients are sent in buckets of at least this size: smaller ones cost latency, larger ones wait for more layers.

On a CPU they are sent all together: sending takes the cores that compute (docs/lab-book.md). Not measured on GPUs yet.
"""


def mean_gradients(
    losses: Iterable[Scalar], num_losses: int, parameters: Sequence[Tensor], process_group: ProcessGroup
) -> tuple[list[Tensor], Scalar]:
    """Return the gradients of the losses' sum, and the sum, averaged over the processes.

    The gradient of each loss is computed before the next loss is.
    """
    gradients: list[Tensor] = []
    total: Scalar | None = None
    for number, loss in enumerate(losses, start=1):
        total = loss.detach() if total is None else total + loss.detach()
        if number == num_losses and process_group.world_size > 1:
            return _reduce_while_computing(loss, total, parameters, gradients, process_group)
        new = torch.autograd.grad(loss, parameters)
        gradients = [old + added for old, added in zip(gradients, new, strict=True)] if gradients else list(new)
    assert total is not None
    return gradients, total


def _reduce_while_computing(
    loss: Scalar, total: Scalar, parameters: Sequence[Tensor], gradients: Sequence[Tensor], process_group: ProcessGroup
) -> tuple[list[Tensor], Scalar]:
    """Return the averages of this loss's gradients added to `gradients`, and of `total`."""
    buckets = Buckets(parameters, gradients, total, process_group)
    with ExitStack() as hooks:
        for index, parameter in enumerate(parameters):
            hooks.callback(parameter.register_hook(buckets.hook(index)).remove)
        torch.autograd.grad(loss, parameters)
    return buckets.means()


class Buckets:
    """Gradients in groups, each sent as soon as it is complete.

    Groups follow the reversed order of the parameters, as backward passes do, and every process sends them in this
    order, whichever is complete first. The loss travels with the last one.
    """

    def __init__(
        self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], loss: Scalar, process_group: ProcessGroup
    ) -> None:
        self.loss, self.process_group = loss, process_group
        self.gradients: list[Tensor | None] = list(gradients) or [None] * len(parameters)
        self.is_complete = [False] * len(parameters)
        self.buckets = _split(parameters)
        self.sent: list[AsyncMean] = []

    def hook(self, index: int) -> Callable[[Tensor], None]:
        return partial(self._add, index)

    def _add(self, index: int, gradient: Tensor) -> None:
        old = self.gradients[index]
        self.gradients[index] = gradient if old is None else old + gradient
        self.is_complete[index] = True
        while len(self.sent) < len(self.buckets) and all(self.is_complete[i] for i in self.buckets[len(self.sent)]):
            tensors = [each for i in self.buckets[len(self.sent)] if (each := self.gradients[i]) is not None]
            is_last = len(self.sent) == len(self.buckets) - 1
            self.sent.append(self.process_group.all_reduce_mean_async([*tensors, *([self.loss] if is_last else [])]))

    def means(self) -> tuple[list[Tensor], Scalar]:
        """Return the averages of the gradients, in the order of the parameters, and of the loss."""
        *means, loss = [mean for sent in self.sent for mean in sent.results()]
        indices = [index for bucket in self.buckets for index in bucket]
        by_index = dict(zip(indices, means, strict=True))
        return [by_index[index] for index in range(len(means))], loss


def _split(parameters: Sequence[Tensor]) -> list[list[int]]:
    """Return the indices of the parameters from the last to the first, in buckets of at least `BUCKET_BYTES`."""
    buckets, size = [[]], 0
    bucket_bytes = BUCKET_BYTES.get(parameters[0].device.type, math.inf)
    for index in reversed(range(len(parameters))):
        if size >= bucket_bytes:
            buckets.append([])
            size = 0
        buckets[-1].append(index)
        size += parameters[index].nbytes
    return buckets
