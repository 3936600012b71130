"""The workers that share every batch: which part is whose, and sums over all of them."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed


def rank_and_size() -> tuple[int, int]:
    """This worker's number and how many there are; (0, 1) where torch.distributed has joined none."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def share(num_items: int, rank: int, size: int) -> range:
    """The part of `num_items` that is a worker's own: shares differ by one at most, as 8 = 3 + 3 + 2."""
    return range(-(-num_items * rank // size), -(-num_items * (rank + 1) // size))


@torch.compiler.disable  # type: ignore[untyped-decorator]  # a compiled graph ends before the workers meet, and another begins after it
def sum_over_workers(tensor: Tensor) -> Tensor:
    """The sum of every worker's `tensor`, same shape; in one process the tensor itself.

    Gradients pass through it, and come out right under DistributedDataParallel. Let S = sum over workers s_w be such a
    sum and L(S) the loss, which every worker then knows and differentiates. Each of the W workers sends dL/dS back
    into S, so the gradient that arrives at s_w is their sum, W dL/dS: what `backward` computes. Worker w so obtains
    W dL/dS ds_w/dp for a parameter p, and DistributedDataParallel takes the mean over workers:
    (1/W) sum_w W dL/dS ds_w/dp = dL/dp, the gradient that one process would compute from the whole batch.
    It follows that a loss must depend on every worker's pictures, its own too, through such sums alone: a mean is the
    sum of the sums over the sum of the counts, and no worker's own mean may be added to it.
    """
    if rank_and_size()[1] == 1:
        return tensor
    total: Tensor = _Sum.apply(tensor)
    return total


def gather_from_workers(rows: Tensor) -> Tensor:
    """The rows of every worker, in their order: (own rows, ...) -> (all rows, ...), any type; gradients pass as above.

    A sum of tensors that are zero but for each worker's own rows, whose numbers may differ.
    """
    rank, size = rank_and_size()
    if size == 1:
        return rows
    counts = torch.zeros(size, dtype=torch.int64, device=rows.device)
    counts[rank] = len(rows)
    counts = _all_reduced(counts)
    before = int(counts[:rank].sum())
    own = (before, int(counts.sum()) - before - len(rows))
    gathered: Tensor = sum_over_workers(F.pad(rows, (0, 0) * (rows.ndim - 1) + own))
    return gathered


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
