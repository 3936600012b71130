"""Batch normalisation by the statistics of the whole batch, of which each worker has a part."""

import torch
from torch import Tensor, nn

from roadseg_train.group import sum_over_workers


class PooledBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d over the pictures of all workers: the same parameters and buffers under the same names.

    For CPU, where torch.nn.SyncBatchNorm refuses to work. Workers may have different numbers of pictures.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape and type."""
        if not self.training:
            return super().forward(x)
        variance, mean = torch.var_mean(x.float(), (0, 2, 3), correction=0)
        # Each worker's own statistics are stable; as sums in float64 they are added without losing the variance.
        variance, mean = variance.double(), mean.double()
        count = mean.new_full((1,), x.numel() // x.shape[1])
        total = sum_over_workers(torch.cat((count, count * mean, count * (variance + mean.square()))))
        count = total[:1]
        mean, mean_square = (total[1:] / count).chunk(2)
        variance = mean_square - mean.square()
        self._track(mean.detach().float(), (variance * count / (count - 1)).detach().float())
        scale = self.weight * (variance + self.eps).rsqrt().float()
        shift = self.bias - mean.float() * scale
        return torch.addcmul(shift[:, None, None], x.float(), scale[:, None, None]).to(x.dtype)

    def _track(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(unbiased_variance, self.momentum)
        self.num_batches_tracked += 1


def pool_norms(network: nn.Module) -> None:
    """Let every BatchNorm2d inside `network` normalise over all workers; weights, buffers and their names stay."""
    if next(network.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return
    for parent in list(network.modules()):
        for name, norm in list(parent.named_children()):
            if isinstance(norm, nn.BatchNorm2d):
                pooled = PooledBatchNorm2d(norm.num_features, norm.eps, norm.momentum)
                pooled.weight, pooled.bias = norm.weight, norm.bias  # the same tensors: the optimiser may know them
                pooled.load_state_dict(norm.state_dict())
                setattr(parent, name, pooled)
