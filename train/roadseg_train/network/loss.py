"""Losses over labelled pixels of the whole batch, of which each worker has a part; void never counts."""

import torch
import torch.nn.functional as F
from torch import Tensor

from roadseg_train.data.dataset import ROAD, UNKNOWN_CLASS, VOID
from roadseg_train.network.group import gather_from_workers, sum_over_workers


def iou_loss(logits_BHW: Tensor, target_BHW: Tensor) -> Tensor:
    """Soft IoU (Jaccard) loss, pooled over the batch as the dataset IoU pools over the dataset.

    1 - sum(p t) / sum(p + t - p t) over labelled pixels. Source: Rahman and Wang, "Optimizing
    Intersection-Over-Union in Deep Neural Networks for Image Segmentation", ISVC 2016.

    Args:
        logits_BHW: road logits, float.
        target_BHW: uint8 in {0 void, 1 not road, 2 road}.

    Returns:
        A scalar in [0, 1]; 0 for a batch with nothing labelled.
    """
    labelled = (target_BHW != VOID).float()
    truth = (target_BHW == ROAD).float()
    prob = torch.sigmoid(logits_BHW.float()) * labelled
    intersection, total = sum_over_workers(torch.stack(((prob * truth).sum(), (prob + truth).sum())))
    union = total - intersection
    smooth = 1.0  # one pixel: keeps a batch without road, or without labels, finite
    loss: Tensor = 1 - (intersection + smooth) / (union + smooth)
    return loss


def bce_loss(logits_BHW: Tensor, target_BHW: Tensor) -> Tensor:
    """Binary cross-entropy in nats, the mean over labelled pixels; 0 where nothing is labelled.

    Args:
        logits_BHW: road logits, float.
        target_BHW: uint8 in {0 void, 1 not road, 2 road}.
    """
    labelled = (target_BHW != VOID).float()
    truth = (target_BHW == ROAD).float()
    total = F.binary_cross_entropy_with_logits(logits_BHW.float(), truth, weight=labelled, reduction="sum")
    return _mean_over_workers(total, labelled.sum())


def lovasz_loss(logits_BHW: Tensor, target_BHW: Tensor) -> Tensor:
    """Lovász hinge: the convex extension of the Jaccard loss, pooled over the labelled pixels of the batch.

    Source: Berman, Rannen Triki and Blaschko, "The Lovász-Softmax loss", CVPR 2018, eq. 8 and 12.

    Args:
        logits_BHW: road logits, float.
        target_BHW: uint8 in {0 void, 1 not road, 2 road}.

    Returns:
        A scalar of at least 0; 0 for a batch with nothing labelled.
    """
    logits_BHW, target_BHW = gather_from_workers(logits_BHW), gather_from_workers(target_BHW)
    labelled = target_BHW != VOID
    logits, truth = logits_BHW.float()[labelled], (target_BHW[labelled] == ROAD).float()
    if truth.numel() == 0:
        return logits_BHW.sum() * 0
    errors, order = torch.sort(1 - logits * (2 * truth - 1), descending=True)
    truth = truth[order]
    intersection = truth.sum() - truth.cumsum(0)
    union = truth.sum() + (1 - truth).cumsum(0)
    jaccard = 1 - intersection / union  # of the set of the k pixels with the largest errors
    weights = torch.diff(jaccard, prepend=jaccard.new_zeros(1))
    return (F.relu(errors) * weights).sum()


def class_loss(logits_BCHW: Tensor, classes_BHW: Tensor) -> Tensor:
    """Cross-entropy over the classes in nats, the mean over the pixels whose class is known; 0 where none is.

    Args:
        logits_BCHW: class logits, float, at half the resolution of the classes (rounded up).
        classes_BHW: uint8 in {0 unknown, 1 .. C}.
    """
    classes_BHW = classes_BHW[:, ::2, ::2].long()
    known = (classes_BHW != UNKNOWN_CLASS).sum()
    total = F.cross_entropy(logits_BCHW.float(), classes_BHW - 1, ignore_index=UNKNOWN_CLASS - 1, reduction="sum")
    return _mean_over_workers(total, known)


def _mean_over_workers(total: Tensor, count: Tensor) -> Tensor:
    total, count = sum_over_workers(torch.stack((total, count.to(total.dtype))))
    mean: Tensor = total / count.clamp(min=1)
    return mean
