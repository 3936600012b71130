"""Sums over all training workers, through which gradients pass."""

from typing import Any

import torch
from torch import Tensor, distributed


def rank_and_size() -> tuple[int, int]:
    """This worker's rank and the number of workers; (0, 1) without torch.distributed."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


@torch.compiler.disable  # type: ignore[untyped-decorator]  # a compiled graph ends before the workers meet, and another begins after it
def sum_over_workers(tensor: Tensor) -> Tensor:
    """The sum of every worker's `tensor`, same shape; without torch.distributed, the tensor itself.

    Gradients are correct under DistributedDataParallel. Let S = sum over workers s_w be such a sum and L(S) the loss,
    which every worker then knows and differentiates. Each of the W workers sends dL/dS back into S, so s_w receives
    their sum, W dL/dS: what `backward` computes. For a parameter p, worker w gets W dL/dS ds_w/dp, and
    DistributedDataParallel averages: (1/W) sum_w W dL/dS ds_w/dp = dL/dp, the gradient of the whole batch. So a loss
    may depend on images, even the worker's own, only through such sums: a mean is the sum of sums over the sum of
    counts, and no worker's own mean may be added to it.
    """
    if rank_and_size()[1] == 1:
        return tensor
    total: Tensor = _Sum.apply(tensor)
    return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, tensor: Tensor) -> Tensor:
        return _all_reduced(tensor)

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        return _all_reduced(gradient)


def _all_reduced(tensor: Tensor) -> Tensor:
    total = tensor.detach().clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total)
    return total
