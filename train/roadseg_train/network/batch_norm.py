"""Batch normalisation over the images of all workers, also on CPUs.

Source: Ioffe and Szegedy 2015 (arXiv 1502.03167).
"""

from typing import Any

import torch
from torch import Tensor, nn

from roadseg_train.network.collectives import sum_over_workers


class SyncBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d over the images of all workers, with the same names of parameters and buffers.

    For CPUs, which torch.nn.SyncBatchNorm rejects. Workers may have different numbers of images.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape and type."""
        if not self.training:
            return super().forward(x)
        y: Tensor
        y, mean, variance, count = _normalise(x, self.weight, self.bias, self.eps)
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        self.num_batches_tracked += 1
        return y


@torch.compiler.disable  # type: ignore[untyped-decorator]  # workers communicate in it, between two compiled graphs
def _normalise(x_BCHW: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalised (B, C, H, W); over all workers: mean (C), variance (C) and pixels per channel ()."""
    normalised: tuple[Tensor, Tensor, Tensor, Tensor] = _Normalise.apply(x_BCHW, weight, bias, eps)
    return normalised


class _Normalise(torch.autograd.Function):
    """Uses torch's kernels for one worker; the same in tensor operations is seven times slower."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # The two unused buffers make it return float32 if x is bfloat16.
        mean, variance = torch.batch_norm_update_stats(x, torch.zeros_like(weight), torch.ones_like(weight), 0.0)
        # Each worker's own statistics are stable; adding them as float64 sums keeps the variance accurate.
        mean, variance = mean.double(), variance.double()
        count = mean.new_full((1,), x.numel() // x.shape[1])
        total = sum_over_workers(torch.cat((count, count * mean, count * (variance + mean.square()))))
        count = total[0]
        mean, mean_square = (total[1:] / count).chunk(2)
        mean, variance = mean.float(), (mean_square - mean.square()).float()
        ctx.save_for_backward(x, weight, mean, variance, count)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance, count)
        y = torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, eps)[0]
        return y, mean, variance, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_of_statistics: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        # With y = weight z + bias, z = (x - mean) / deviation, and each mean below over the pixels of all workers:
        # dx = weight / deviation (dy - mean(dy) - z mean(dy z)).
        x, weight, mean, variance, count = ctx.saved_tensors
        # As if the statistics were constants: dx = weight / deviation dy, and the sums of this worker.
        dx, dy_z, dy = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        mean_dy_z, mean_dy = (sum_over_workers(torch.cat((dy_z, dy)).double()) / count).float().chunk(2)
        # The contribution of the statistics is a normalisation too, with another weight and bias.
        scale = weight * (variance + ctx.eps).rsqrt()
        dx += torch.native_batch_norm(x, -scale * mean_dy_z, -scale * mean_dy, mean, variance, False, 0.0, ctx.eps)[0]
        return dx, dy_z, dy, None


def synchronise_batch_norms(network: nn.Module) -> None:
    """Make every BatchNorm2d inside `network` normalise over all workers, keeping weights, buffers and names."""
    if next(network.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return
    for name, norm in list(network.named_modules()):
        if isinstance(norm, nn.BatchNorm2d):
            synced = SyncBatchNorm2d(norm.num_features, norm.eps, norm.momentum)
            synced.weight, synced.bias = norm.weight, norm.bias  # the same tensors, which the optimiser may hold
            synced.load_state_dict(norm.state_dict())
            network.set_submodule(name, synced)
