"""Losses over the labelled pixels of the whole batch, which workers share.

Logits are float; target_BHW is uint8 in {0 void, 1 not road, 2 road}, and void pixels are ignored. Each loss is a
scalar, 0 if nothing is labelled.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from roadseg_train.data.dataset import ROAD, UNKNOWN_CLASS, VOID
from roadseg_train.network.collectives import sum_over_workers


def iou_loss(logits_BHW: Tensor, target_BHW: Tensor) -> Tensor:
    """Soft IoU (Jaccard) loss in [0, 1], pooled over the batch as the dataset IoU is pooled over the dataset.

    1 - sum(p t) / sum(p + t - p t) over labelled pixels. Source: Rahman and Wang, "Optimizing
    Intersection-Over-Union in Deep Neural Networks for Image Segmentation", ISVC 2016.
    """
    labelled = (target_BHW != VOID).float()
    truth = (target_BHW == ROAD).float()
    prob = torch.sigmoid(logits_BHW.float()) * labelled
    intersection, total = sum_over_workers(torch.stack(((prob * truth).sum(), (prob + truth).sum())))
    union = total - intersection
    smooth = 1.0  # one pixel, keeps a batch without road or labels finite
    loss: Tensor = 1 - (intersection + smooth) / (union + smooth)
    return loss


def bce_loss(logits_BHW: Tensor, target_BHW: Tensor) -> Tensor:
    """Binary cross-entropy in nats, the mean over labelled pixels."""
    labelled = (target_BHW != VOID).float()
    truth = (target_BHW == ROAD).float()
    total = F.binary_cross_entropy_with_logits(logits_BHW.float(), truth, weight=labelled, reduction="sum")
    return _mean_over_workers(total, labelled.sum())


def class_loss(logits_BCHW: Tensor, classes_BHW: Tensor) -> Tensor:
    """Cross-entropy over the classes in nats, the mean over pixels of known class.

    Classes are uint8 in {0 unknown, 1 .. C}; logits are at half their resolution, rounded up.
    """
    classes_BHW = classes_BHW[:, ::2, ::2].long()
    known = (classes_BHW != UNKNOWN_CLASS).sum()
    total = F.cross_entropy(logits_BCHW.float(), classes_BHW - 1, ignore_index=UNKNOWN_CLASS - 1, reduction="sum")
    return _mean_over_workers(total, known)


def _mean_over_workers(total: Tensor, count: Tensor) -> Tensor:
    total, count = sum_over_workers(torch.stack((total, count.to(total.dtype))))
    mean: Tensor = total / count.clamp(min=1)
    return mean
