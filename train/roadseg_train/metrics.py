"""Scores from pixel counts: two histograms of the 8-bit probability give every threshold in one pass."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from roadseg_train.data.dataset import NOT_ROAD, ROAD, UInt8Array

NUM_LEVELS = 256

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Histogram:
    """Number of road and other labelled pixels at each probability level 0..255, int64 (..., 256)."""

    road: IntArray
    not_road: IntArray

    def __add__(self, other: "Histogram") -> "Histogram":
        return Histogram(self.road + other.road, self.not_road + other.not_road)


@dataclass(frozen=True)
class Confusion:
    """Pixel counts at every threshold level 0..255, int64 (..., 256); a pixel is road if prob >= level."""

    true_positive: IntArray
    false_positive: IntArray
    false_negative: IntArray
    true_negative: IntArray


class Scores(BaseModel, extra="forbid", frozen=True):
    """The reported scores, in [0, 1] over labelled pixels, at one threshold except `max_f`."""

    road_iou: float
    mean_image_iou: float
    f1: float
    max_f: float


class KittiScores(BaseModel, extra="forbid", frozen=True):
    """The scores of the KITTI Road benchmark, in [0, 1]; all but average precision at the working point."""

    max_f: float
    average_precision: float
    precision: float
    recall: float
    false_positive_rate: float
    false_negative_rate: float
    threshold: float  # of the working point, which has the best F1


def histogram(prob_HW: UInt8Array, target_HW: UInt8Array) -> Histogram:
    """Count the labelled pixels of a target by their road probability, uint8, same shape; 255 is certain."""
    return Histogram(
        np.bincount(prob_HW[target_HW == ROAD], minlength=NUM_LEVELS).astype(np.int64),
        np.bincount(prob_HW[target_HW == NOT_ROAD], minlength=NUM_LEVELS).astype(np.int64),
    )


def confusion(counts: Histogram) -> Confusion:
    """Counts at every threshold."""
    true_positive, false_positive = _at_or_above(counts.road), _at_or_above(counts.not_road)
    # At level 0 every pixel counts as road, so these are all pixels.
    num_road, num_not_road = true_positive[..., :1], false_positive[..., :1]
    return Confusion(true_positive, false_positive, num_road - true_positive, num_not_road - false_positive)


def iou(counts: Confusion) -> FloatArray:
    """TP / (TP + FP + FN) at each level, float64 (..., 256); 1 if there is no road and none is predicted."""
    return _divide(counts.true_positive, counts.true_positive + counts.false_positive + counts.false_negative)


def f1(counts: Confusion) -> FloatArray:
    """2 TP / (2 TP + FP + FN) at each level, float64 (..., 256); 1 if there is no road and none is predicted."""
    total = 2 * counts.true_positive + counts.false_positive + counts.false_negative
    return _divide(2 * counts.true_positive, total)


def _at_or_above(counts: IntArray) -> IntArray:
    return np.flip(np.cumsum(np.flip(counts, axis=-1), axis=-1), axis=-1)


def _divide(part: IntArray, whole: IntArray) -> FloatArray:
    ratio: FloatArray = np.ones(whole.shape)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def max_f(counts: Confusion) -> float:
    """MaxF of KITTI's devkit (evaluateRoad.py): the best F1 at any threshold, counts pooled over all images."""
    return float(f1(counts).max())


def kitti_scores(counts: Confusion) -> KittiScores | None:
    """The scores of KITTI's devkit from 8-bit confidences, on counts (256,) pooled over all images.

    Thresholds are 0/255 .. 255/255; those that find no road are ignored. The working point is the lowest threshold with
    the best F1. Average precision is Pascal VOC's: the mean over recall 0, 0.1, .. 1 of the best precision at that
    recall or higher. Returns None if there is no road to find.

    Source: evaluateRoad.py and helper.py of the KITTI Road devkit.
    """
    num_road, num_not_road = int(counts.true_positive[0]), int(counts.false_positive[0])
    if num_road == 0:
        return None
    levels = np.flatnonzero(counts.true_positive)
    recall = counts.true_positive[levels] / num_road
    precision = counts.true_positive[levels] / (counts.true_positive + counts.false_positive)[levels]
    best = int(f1(counts)[levels].argmax())
    level = int(levels[best])
    return KittiScores(
        max_f=max_f(counts),
        average_precision=float(np.mean([precision[recall >= least].max() for least in np.linspace(0, 1, 11)])),
        precision=float(precision[best]),
        recall=float(recall[best]),
        false_positive_rate=float(counts.false_positive[level]) / max(1, num_not_road),
        false_negative_rate=float(counts.false_negative[level] / num_road),
        threshold=level / (NUM_LEVELS - 1),
    )


def threshold_level(threshold: float) -> int:
    """The smallest 8-bit level whose probability level / 255 is at least `threshold`, in [0, 1]."""
    return int(np.ceil(threshold * (NUM_LEVELS - 1) - 1e-9))


def pool(images: list[Histogram]) -> Histogram:
    """Add up the counts of one or more images."""
    return sum(images[1:], start=images[0])


def score(images: list[Histogram], threshold: float) -> Scores:
    """Scores of images at a threshold in [0, 1], pooled except the mean of each image's own IoU."""
    level = threshold_level(threshold)
    pooled = confusion(pool(images))
    return Scores(
        road_iou=float(iou(pooled)[level]),
        mean_image_iou=float(np.mean([iou(confusion(image))[level] for image in images])),
        f1=float(f1(pooled)[level]),
        max_f=max_f(pooled),
    )
