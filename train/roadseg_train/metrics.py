"""Scores from counts; two histograms of the 8-bit probability serve every threshold in one pass."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from roadseg_train.dataset import NOT_ROAD, ROAD, UInt8Array

NUM_LEVELS = 256

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Histogram:
    """Number of labelled pixels at each probability level 0..255, int64 (256,): where the truth is road, and is not."""

    road: IntArray
    not_road: IntArray

    def __add__(self, other: "Histogram") -> "Histogram":
        return Histogram(self.road + other.road, self.not_road + other.not_road)


@dataclass(frozen=True)
class Confusion:
    """Pixel counts at every threshold level 0..255, int64 (256,); a pixel is called road where prob >= level."""

    true_positive: IntArray
    false_positive: IntArray
    false_negative: IntArray


class Scores(BaseModel):
    """What is reported, as fractions in [0, 1] over labelled pixels, at one threshold except `max_f`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    road_iou: float
    mean_image_iou: float
    f1: float
    max_f: float


def histogram(prob_HW: UInt8Array, target_HW: UInt8Array) -> Histogram:
    """Count labelled pixels by probability.

    Args:
        prob_HW: road probability, uint8, 255 is certain.
        target_HW: uint8 in {0 void, 1 not road, 2 road}, of the same shape.
    """
    return Histogram(
        np.bincount(prob_HW[target_HW == ROAD], minlength=NUM_LEVELS).astype(np.int64),
        np.bincount(prob_HW[target_HW == NOT_ROAD], minlength=NUM_LEVELS).astype(np.int64),
    )


def confusion(counts: Histogram) -> Confusion:
    """Counts at every threshold at once."""
    true_positive = counts.road[::-1].cumsum()[::-1]
    false_positive = counts.not_road[::-1].cumsum()[::-1]
    return Confusion(true_positive, false_positive, counts.road.sum() - true_positive)


def iou(counts: Confusion) -> FloatArray:
    """TP / (TP + FP + FN) at each level, float64 (256,); 1 where there is neither road nor a claim of it."""
    union = counts.true_positive + counts.false_positive + counts.false_negative
    return _divide(counts.true_positive, union)


def f1(counts: Confusion) -> FloatArray:
    """2 TP / (2 TP + FP + FN) at each level, float64 (256,); 1 where there is neither road nor a claim of it."""
    total = 2 * counts.true_positive + counts.false_positive + counts.false_negative
    return _divide(2 * counts.true_positive, total)


def _divide(part: IntArray, whole: IntArray) -> FloatArray:
    ratio: FloatArray = np.ones(NUM_LEVELS)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def max_f(counts: Confusion) -> float:
    """KITTI MaxF: the best F1 over the thresholds 0/255 .. 255/255, counts pooled over all pictures.

    Source: evaluateRoad.py of the KITTI Road devkit.
    """
    return float(f1(counts).max())


def threshold_level(threshold: float) -> int:
    """The smallest 8-bit level whose probability level / 255 is at least `threshold`, in [0, 1]."""
    return int(np.ceil(threshold * (NUM_LEVELS - 1) - 1e-9))


def score(images: list[Histogram], threshold: float) -> Scores:
    """Scores of a set of pictures at a threshold in [0, 1]; pooled, except the mean of each picture's own IoU."""
    level = threshold_level(threshold)
    pooled = confusion(sum(images[1:], start=images[0]))
    return Scores(
        road_iou=float(iou(pooled)[level]),
        mean_image_iou=float(np.mean([iou(confusion(image))[level] for image in images])),
        f1=float(f1(pooled)[level]),
        max_f=max_f(pooled),
    )
