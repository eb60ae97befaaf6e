"""Batch normalization over the batches of all processes of a run.

PyTorch's own SyncBatchNorm refuses the CPU and cannot be differentiated twice, which gradient penalties need.
"""

import copy
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from cardigan.training.distributed import ProcessGroup

Network = TypeVar("Network", bound=nn.Module)
Maps = Float[Tensor, "batch channel height width"]
ChannelVector = Float[Tensor, " channel"]


def convert_sync_batchnorm(network: Network, process_group: ProcessGroup) -> Network:
    """Return the network with every BatchNorm2d replaced, in place, by one that sees the whole global batch."""
    if process_group.world_size > 1:
        for module in network.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = SyncBatchNorm2d
                assert isinstance(module, SyncBatchNorm2d)
                module.process_group = process_group
    return network


def local_copy(network: Network) -> Network:
    """Return a copy of the network that one process can use by itself, with its own batch statistics."""
    network_copy = copy.deepcopy(network)
    for module in network_copy.modules():
        if type(module) is SyncBatchNorm2d:
            module.__class__ = nn.BatchNorm2d  # pyright: ignore[reportAttributeAccessIssue] - undoes the conversion
    return network_copy


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Equal to `nn.BatchNorm2d` on the concatenated batches of all processes. One collective per pass."""

    process_group = ProcessGroup()

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        values: Any = Normalize.apply(input.float(), self.weight, self.bias, self.eps, self.process_group)
        output, mean, variance = values
        count = input.numel() // input.shape[1] * self.process_group.world_size
        self._update_running_stats(mean, variance * count / (count - 1))
        return output.to(input.dtype)

    @torch.no_grad()
    def _update_running_stats(self, mean: ChannelVector, variance: ChannelVector) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class Normalize(torch.autograd.Function):
    """Normalizes by the statistics of all processes; returns them too.

    It uses PyTorch's fused kernels, which are several times faster on a CPU than the same arithmetic in single
    operations (docs/lab-book.md). Where the gradient is differentiated again, `normalize` takes their place.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Maps, weight: ChannelVector, bias: ChannelVector, eps: float, process_group: ProcessGroup
    ) -> tuple[Maps, ChannelVector, ChannelVector]:
        moments = _moments(*torch.ops.aten.batch_norm_update_stats(x, None, None, 0.0))
        mean, variance = _statistics(process_group.all_reduce_sum(moments), process_group)
        ctx.save_for_backward(x, weight, bias, mean, variance)
        ctx.eps, ctx.process_group = eps, process_group
        ctx.mark_non_differentiable(mean, variance)
        return batch_norm(x, mean, variance, weight, bias, training=False, eps=eps), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (x, weight, bias, mean, variance), gradient = ctx.saved_tensors, gradients[0]
        if torch.is_grad_enabled():  # the gradient will be differentiated
            output = normalize(x, weight, bias, ctx.eps, ctx.process_group)
            inputs = [each for each in (x, weight, bias) if each.requires_grad]
            found = iter(torch.autograd.grad(output, inputs, gradient, create_graph=True))
            return *(next(found) if each.requires_grad else None for each in (x, weight, bias)), None, None
        inverse_deviation = (variance + ctx.eps).rsqrt()
        scaled, weight_gradient, bias_gradient = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, mean, inverse_deviation, False, ctx.eps, [True, True, True]
        )
        count = x.numel() // x.shape[1] * ctx.process_group.world_size
        sums = ctx.process_group.all_reduce_sum(torch.stack([bias_gradient, weight_gradient]))
        mean_gradient, mean_product = sums / count  # of the gradient, and of the gradient times the normalized value
        scale = weight * inverse_deviation
        factor = -scale * inverse_deviation * mean_product
        centered = x - mean[:, None, None]  # also where the mean is large beside the deviation
        input_gradient = scaled.sub_((scale * mean_gradient)[:, None, None]).addcmul_(centered, factor[:, None, None])
        return input_gradient, weight_gradient, bias_gradient, None, None


def normalize(x: Maps, weight: ChannelVector, bias: ChannelVector, eps: float, process_group: ProcessGroup) -> Maps:
    """Return what `Normalize` returns, by operations that can be differentiated any number of times."""
    own_mean = x.mean((0, 2, 3))
    moments = _moments(own_mean, (x - own_mean[:, None, None]).square().mean((0, 2, 3)))
    total: Any = AllReduceSum.apply(moments, process_group)
    mean, variance = _statistics(total, process_group)
    scale = weight * (variance + eps).rsqrt()
    return (x - mean[:, None, None]) * scale[:, None, None] + bias[:, None, None]


class AllReduceSum(torch.autograd.Function):
    """The sum over all processes; as every process gets it, its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, process_group: ProcessGroup) -> Tensor:
        ctx.process_group = process_group
        return process_group.all_reduce_sum(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return AllReduceSum.apply(gradients[0], ctx.process_group), None


def _moments(mean: ChannelVector, variance: ChannelVector) -> Float[Tensor, "2 channel"]:
    """Return the mean and the mean square, in fp64: their sums over processes lose nothing of the variance."""
    mean = mean.double()
    return torch.stack([mean, variance.double() + mean.square()])


def _statistics(total: Float[Tensor, "2 channel"], process_group: ProcessGroup) -> tuple[ChannelVector, ChannelVector]:
    """Return the mean and the variance of all processes' images together."""
    mean, mean_square = total / process_group.world_size
    return mean.float(), (mean_square - mean.square()).float()
