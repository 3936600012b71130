"""Losses over labelled pixels of the whole batch, of which each worker has a part; void never counts."""

import torch
import torch.nn.functional as F
from torch import Tensor

from roadseg_train.dataset import ROAD, VOID
from roadseg_train.group import sum_over_workers


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
    total, num_labelled = sum_over_workers(torch.stack((total, labelled.sum())))
    mean: Tensor = total / num_labelled.clamp(min=1)
    return mean
